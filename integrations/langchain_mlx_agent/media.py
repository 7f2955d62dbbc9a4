"""Images, sounds and files in the results of tools, in the forms that LangChain and providers write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx_agent_llm.chat.media_notes import media_note, num_decoded_bytes

MEDIA: Mapping[str, str] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "file",
    "document": "file",
    "resource": "file",
    "resource_link": "file",
    "text-plain": "file",
}
"""The types of blocks that hold media, and what each is."""

_TYPE_KEYS = ("mime_type", "media_type", "mimeType", "format")
_DATA_KEYS = ("base64", "data", "blob", "file_data")
_LINK_KEYS = ("url", "uri", "file_id", "path")


def note_of(block: Mapping[str, Any]) -> str:
    """A placeholder for a block: what it is, of which type, how large, and where."""
    values = dict(_values(block))
    media_type, data, link = (_first(values, keys) for keys in (_TYPE_KEYS, _DATA_KEYS, _LINK_KEYS))
    if link is not None and link.startswith("data:"):
        head, _, data = link.partition(",")
        media_type, link = head.removeprefix("data:").removesuffix(";base64"), None
    num_bytes = None if data is None else num_decoded_bytes(data)
    return media_note(MEDIA[block["type"]], media_type, num_bytes, link or values.get("filename") or values.get("name"))


def _values(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a block and of the dicts in it, by key; OpenAI has the url within image_url."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _values(value)
        elif isinstance(value, str):
            yield ("url" if key == "image_url" else key), value


def _first(values: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((values[key] for key in keys if values.get(key)), None)

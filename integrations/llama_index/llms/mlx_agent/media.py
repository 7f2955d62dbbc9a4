"""Images, sounds, videos and documents in the results of tools."""

from __future__ import annotations

from llama_index.core.base.llms.types import AudioBlock, DocumentBlock, ImageBlock, VideoBlock

from mlx_agent_llm.chat.media_notes import media_note, num_decoded_bytes

MediaBlock = ImageBlock | AudioBlock | VideoBlock | DocumentBlock
"""The blocks that hold media."""


def note_of(block: MediaBlock) -> str:
    """A placeholder for a block: what it is, of which type, how large, and where."""
    kind, data, media_type = _parts(block)
    num_bytes = num_decoded_bytes(data.decode("ascii")) if isinstance(data, bytes) else None  # LlamaIndex keeps base64
    link = next((str(one) for one in (block.url, block.path) if one), None)
    return media_note(kind, media_type, num_bytes, link)


def _parts(block: MediaBlock) -> tuple[str, object, str | None]:
    match block:
        case ImageBlock():
            return "image", block.image, block.image_mimetype
        case AudioBlock():
            return "audio", block.audio, block.format
        case VideoBlock():
            return "video", block.video, block.video_mimetype
    return "file", block.data, block.document_mimetype

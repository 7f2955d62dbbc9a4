"""What a text model is told of an image or a file in a tool's result, which it cannot see."""

from __future__ import annotations


def media_note(kind: str, media_type: str | None = None, num_bytes: int | None = None, link: str | None = None) -> str:
    """A placeholder with what is known: the kind of media, its type, its size and where it is."""
    size = None if num_bytes is None else f"{num_bytes:,} bytes"
    known = ", ".join(part for part in (media_type, size, link) if part)
    return f"[{kind}: {known}]" if known else f"[{kind}]"


def num_decoded_bytes(base64_text: str) -> int:
    """How many bytes a base64 text stands for."""
    return len(base64_text.rstrip("=")) * 3 // 4

"""What the engine asks of a reply's form: which of its text is free, and may be ended by a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class TextPiece(NamedTuple):
    """A piece of an output's text, and whether it is free: neither reasoning nor a call, and no mark around them."""

    text: str
    is_free: bool


class FreeText(Protocol):
    """Tells the free text of one output from the rest as it streams. Made anew for every request."""

    @property
    def has_calls(self) -> bool:
        """Whether a call has begun, after which nothing may end the output but its grammar."""

    def feed(self, text: str) -> Sequence[TextPiece]:
        """The pieces that more text decides; what may yet become one or the other is held back."""

    def finish(self) -> Sequence[TextPiece]:
        """What was held back, when no more text comes."""

"""What a source of drafts is: one object a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Drafter(Protocol):
    """Follows one request, and says what may come next. It may be wrong, at the cost of the rows that are computed."""

    def follow(self) -> None:
        """Take in the request's new tokens."""

    def chances(self) -> Iterator[float]:
        """The chance that the first next token is right, that the first two are, and so on; it may end."""

    def tokens(self, count: int) -> list[int]:
        """The next tokens, `count` at most."""

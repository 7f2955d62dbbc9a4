"""What a source of drafts is: one object a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Outlook(NamedTuple):
    """What may become of a draft.

    begin: the chance that there is one at all, when all tokens are read. chances: if so, that its first token is right,
    that its first two are, and so on; they may end.
    """

    begin: float
    chances: Iterator[float]


class Drafter(Protocol):
    """Follows one request, and says what may come next. It may be wrong, at the cost of the rows that are computed."""

    def follow(self) -> None:
        """Take in the request's new tokens."""

    def outlook(self, *, is_read: bool) -> Outlook:
        """What may become of a draft after the request's tokens, or after these and one that nobody has read yet."""

    def tokens(self, count: int) -> list[int]:
        """The next tokens, `count` at most."""

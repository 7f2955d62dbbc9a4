"""Draft: tokens that a request may go on with, computed before anybody knows whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Draft(NamedTuple):
    """What may follow a request's last token; each token is computed as if those before it were right.

    is_forced: for each whether the grammar leaves no choice about it, if those before it are right.
    """

    token_ids: tuple[int, ...] = ()
    is_forced: tuple[bool, ...] = ()

    @property
    def places(self) -> Sequence[int]:
        """After how many of the tokens one is sampled: before each that is not forced, and after the last."""
        if not self.token_ids:  # as nearly always, and for each row of a step
            return _AFTER_NONE
        return [place for place, is_forced in enumerate(self.is_forced) if not is_forced] + [len(self.token_ids)]

    def cut(self, count: int) -> Draft:
        """The first tokens, `count` at most, so that none is forced after them: it would be sampled."""
        if count >= len(self.token_ids):
            return self
        while count > 0 and self.is_forced[count]:
            count -= 1
        return Draft(self.token_ids[:count], self.is_forced[:count]) if count > 0 else NO_DRAFT


NO_DRAFT = Draft()
_AFTER_NONE = (0,)

"""A request's matcher: which tokens may follow, the end tokens among them."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.constrain.backends.cursor import Bitmask, GrammarCursor
from mlx_agent_llm.errors import GenerationError


class TokenSets:
    """What a grammar may use of a vocabulary: its end tokens, and bitmask rows of all and of those that go on."""

    def __init__(self, vocab_size: int, usable: Set[int], end: Set[int]) -> None:
        self.num_words = (vocab_size + 31) // 32
        self.end = frozenset(end)
        self.usable = _bitmask(usable, self.num_words)
        self.continuing = self.usable & ~_bitmask(end, self.num_words)


class GrammarMatcher:
    """Implements the engine's Matcher over a cursor of either library; made anew for every request.

    has_ended: whether an end token was accepted.
    """

    def __init__(self, cursor: GrammarCursor, token_sets: TokenSets) -> None:
        self._cursor = cursor
        self._token_sets = token_sets
        self._row = np.zeros((1, token_sets.num_words), np.int32)
        self._row_is_current = False
        self.has_ended = False

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False, with nothing changed, when the grammar does not allow it."""
        if self.has_ended or not self._is_usable(token_id):
            return False
        if token_id in self._token_sets.end:
            self.has_ended = self._cursor.is_complete
            return self.has_ended
        accepted = self._cursor.accept(token_id)
        self._row_is_current = self._row_is_current and not accepted
        return accepted

    def fill_mask(self, mask: Bitmask, row: int) -> None:
        """Write the tokens that may follow as row `row` of a (rows, ceil(vocab / 32)) bitmask."""
        mask[row] = self._next_tokens()

    @property
    def is_finished(self) -> bool:
        """Whether an end token was accepted, or the text is complete and only an end token could follow."""
        if self.has_ended or not self._cursor.is_complete:
            return self.has_ended
        return not np.any(self._next_tokens() & self._token_sets.continuing)

    def jump_forward(self) -> bytes:
        """What the text has to go on with, b"" where it may end or go on in several ways."""
        return b"" if self._cursor.is_complete else self._cursor.forced_bytes()

    def rollback(self, num_tokens: int) -> None:
        """Take the latest accepted tokens back."""
        self._cursor.rollback(num_tokens - self.has_ended)  # the end token is known here alone
        self.has_ended = self._row_is_current = False

    def _is_usable(self, token_id: int) -> bool:
        return bool(self._token_sets.usable[token_id // 32] >> (token_id % 32) & 1)

    def _next_tokens(self) -> npt.NDArray[np.int32]:
        """The current row, filled once a token; a row without tokens is a fault, never a sample."""
        assert not self.has_ended, "nothing follows the end token"
        if not self._row_is_current:
            self._cursor.fill(self._row)
            np.bitwise_and(self._row, self._token_sets.usable, out=self._row)
            self._row_is_current = True
        if not self._row.any():
            raise GenerationError("the grammar allows no token here, although its text is not complete")
        row: npt.NDArray[np.int32] = self._row[0]
        return row


def _bitmask(token_ids: Set[int], num_words: int) -> npt.NDArray[np.int32]:
    bits = np.zeros(num_words * 32, np.uint8)
    bits[list(token_ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)

"""Where one request stands in its grammar: what may follow, and whether anything can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import GenerationError

if TYPE_CHECKING:
    from xgrammar import CompiledGrammar

Bitmask = npt.NDArray[np.int32]


class TokenSets:
    """The token sets of one vocabulary as bitmask rows: what a grammar may use at all, and what only goes on."""

    def __init__(self, vocab_size: int, unusable: set[int], end: set[int]) -> None:
        self.num_words = (vocab_size + 31) // 32
        self.usable = _bitmask(set(range(vocab_size)) - unusable, self.num_words)
        self.continuing = self.usable & ~_bitmask(end, self.num_words)


class GrammarMatcher:
    """Implements the engine's Matcher with xgrammar; made anew for every request."""

    def __init__(self, grammar: CompiledGrammar, token_sets: TokenSets) -> None:
        import xgrammar

        self._matcher = xgrammar.GrammarMatcher(grammar)
        self._token_sets = token_sets
        self._row = np.zeros((1, token_sets.num_words), np.int32)
        self._row_is_current = False

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False, with nothing changed, when the grammar does not allow it."""
        accepted = bool(self._matcher.accept_token(token_id))
        self._row_is_current = self._row_is_current and not accepted
        return accepted

    def fill_mask(self, mask: Bitmask, row: int) -> None:
        """Write the tokens that may follow as row `row` of a (rows, ceil(vocab / 32)) bitmask."""
        mask[row] = self._next_tokens()

    @property
    def is_finished(self) -> bool:
        """Whether an end token was accepted, or the text is complete and only an end token could follow."""
        if self._matcher.is_terminated():
            return True
        if not self._matcher.is_completed():
            return False
        return not np.any(self._next_tokens() & self._token_sets.continuing)

    def _next_tokens(self) -> npt.NDArray[np.int32]:
        """Return the current row, filled once a position; a row without tokens is a fault, never a sample."""
        assert not self._matcher.is_terminated(), "nothing follows the end token"
        if not self._row_is_current:
            self._row.fill(-1)
            self._matcher.fill_next_token_bitmask(self._row, 0)
            np.bitwise_and(self._row, self._token_sets.usable, out=self._row)
            self._row_is_current = True
        if not self._row.any():
            raise GenerationError("the grammar allows no token here, although its text is not complete")
        row: npt.NDArray[np.int32] = self._row[0]
        return row


def _bitmask(token_ids: set[int], num_words: int) -> npt.NDArray[np.int32]:
    bits = np.zeros(num_words * 32, np.uint8)
    bits[list(token_ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)

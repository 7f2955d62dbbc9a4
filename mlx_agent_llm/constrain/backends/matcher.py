"""Where one request stands in its grammar: what may follow, and whether anything can."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import GenerationError

if TYPE_CHECKING:
    import llguidance
    import xgrammar

Bitmask = npt.NDArray[np.int32]


class TokenSets:
    """What a grammar may use of a vocabulary: its end tokens, and bitmask rows of all and of those that go on."""

    def __init__(self, vocab_size: int, usable: Set[int], end: Set[int]) -> None:
        self.num_words = (vocab_size + 31) // 32
        self.end = frozenset(end)
        self.usable = _bitmask(usable, self.num_words)
        self.continuing = self.usable & ~_bitmask(end, self.num_words)


class Place(Protocol):
    """A place in a grammar, as one of the two backends keeps it."""

    def accept(self, token_id: int) -> bool:
        """Advance by a token that is no end token; False, with nothing changed, when the grammar does not allow it."""

    def fill(self, row: Bitmask) -> None:
        """Write the tokens that may follow into a (1, ceil(vocab / 32)) bitmask; end tokens where it is complete."""

    @property
    def is_complete(self) -> bool:
        """Whether the text so far belongs to the grammar."""

    def forced_bytes(self) -> bytes:
        """What the text has to go on with."""

    def rollback(self, num_tokens: int) -> None:
        """Take the latest tokens back."""

    def fork(self) -> Place:
        """Return a place of its own that stands where this one does."""


class GrammarMatcher:
    """Implements the engine's Matcher with either backend; made anew for every request."""

    def __init__(self, place: Place, token_sets: TokenSets) -> None:
        self._place = place
        self._token_sets = token_sets
        self._row = np.zeros((1, token_sets.num_words), np.int32)
        self._row_is_current = False
        self._has_ended = False

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False, with nothing changed, when the grammar does not allow it."""
        if self._has_ended or not self._is_usable(token_id):
            return False
        if token_id in self._token_sets.end:
            self._has_ended = self._place.is_complete
            return self._has_ended
        accepted = self._place.accept(token_id)
        self._row_is_current = self._row_is_current and not accepted
        return accepted

    def fill_mask(self, mask: Bitmask, row: int) -> None:
        """Write the tokens that may follow as row `row` of a (rows, ceil(vocab / 32)) bitmask."""
        mask[row] = self._next_tokens()

    @property
    def is_complete(self) -> bool:
        """Whether the text so far belongs to the grammar."""
        return self._place.is_complete

    @property
    def is_finished(self) -> bool:
        """Whether an end token was accepted, or the text is complete and only an end token could follow."""
        if self._has_ended or not self._place.is_complete:
            return self._has_ended
        return not np.any(self._next_tokens() & self._token_sets.continuing)

    def jump_forward(self) -> bytes:
        """What the text has to go on with, b"" where it may end or go on in several ways."""
        return b"" if self._place.is_complete else self._place.forced_bytes()

    def rollback(self, num_tokens: int) -> None:
        """Take the latest accepted tokens back."""
        self._place.rollback(num_tokens - self._has_ended)  # the end token is known here alone
        self._has_ended = self._row_is_current = False

    def fork(self) -> GrammarMatcher:
        """Return a matcher of its own that stands where this one does."""
        copy = GrammarMatcher(self._place.fork(), self._token_sets)
        copy._has_ended = self._has_ended
        return copy

    def _is_usable(self, token_id: int) -> bool:
        return bool(self._token_sets.usable[token_id // 32] >> (token_id % 32) & 1)

    def _next_tokens(self) -> npt.NDArray[np.int32]:
        """Return the current row, filled once a position; a row without tokens is a fault, never a sample."""
        assert not self._has_ended, "nothing follows the end token"
        if not self._row_is_current:
            self._place.fill(self._row)
            np.bitwise_and(self._row, self._token_sets.usable, out=self._row)
            self._row_is_current = True
        if not self._row.any():
            raise GenerationError("the grammar allows no token here, although its text is not complete")
        row: npt.NDArray[np.int32] = self._row[0]
        return row


class XGrammarPlace:
    """A place in a grammar that xgrammar compiled; see Place."""

    def __init__(self, matcher: xgrammar.GrammarMatcher) -> None:
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        """See Place."""
        return bool(self._matcher.accept_token(token_id))

    def fill(self, row: Bitmask) -> None:
        """See Place."""
        row.fill(-1)  # what xgrammar leaves as it is when every token may follow
        self._matcher.fill_next_token_bitmask(row, 0)

    @property
    def is_complete(self) -> bool:
        """See Place."""
        return bool(self._matcher.is_completed())

    def forced_bytes(self) -> bytes:
        """See Place."""
        try:
            text: str = self._matcher.find_jump_forward_string()
        except UnicodeDecodeError as error:  # where the forced bytes begin or end within a character
            return error.object
        return text.encode()

    def rollback(self, num_tokens: int) -> None:
        """See Place."""
        self._matcher.rollback(num_tokens)

    def fork(self) -> XGrammarPlace:
        """See Place."""
        return XGrammarPlace(self._matcher.fork())


class LLGuidancePlace:
    """A place in a grammar that llguidance reads; see Place. A fault inside llguidance is a GenerationError."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        """See Place."""
        accepted = self._matcher.try_consume_tokens([token_id]) == 1
        self._check()
        return accepted

    def fill(self, row: Bitmask) -> None:
        """See Place."""
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        if self._fault() == "NoExtensionBias":
            row.fill(0)  # no token of the vocabulary goes on
        else:
            self._check()  # a matcher in error allows the end token alone, as if the text were complete

    @property
    def is_complete(self) -> bool:
        """See Place."""
        return self._matcher.is_accepting()

    def forced_bytes(self) -> bytes:
        """See Place."""
        return self._matcher.compute_ff_bytes()

    def rollback(self, num_tokens: int) -> None:
        """See Place."""
        self._matcher.rollback(num_tokens)
        self._check()

    def fork(self) -> LLGuidancePlace:
        """See Place."""
        return LLGuidancePlace(self._matcher.deep_copy())

    def _check(self) -> None:
        if fault := self._fault():
            raise GenerationError(f"llguidance cannot go on: {fault}")

    def _fault(self) -> str:
        return self._matcher.get_error().partition("\n")[0]


def _bitmask(token_ids: Set[int], num_words: int) -> npt.NDArray[np.int32]:
    bits = np.zeros(num_words * 32, np.uint8)
    bits[list(token_ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)

"""A cursor in a grammar, as each of the two libraries keeps it: what may follow the text so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import GenerationError

if TYPE_CHECKING:
    import llguidance
    import xgrammar

Bitmask = npt.NDArray[np.int32]


class GrammarCursor(Protocol):
    """Where one text stands in a grammar."""

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


class XGrammarCursor:
    """A cursor in a grammar that xgrammar compiled; see GrammarCursor."""

    def __init__(self, matcher: xgrammar.GrammarMatcher) -> None:
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        """See GrammarCursor."""
        return bool(self._matcher.accept_token(token_id))

    def fill(self, row: Bitmask) -> None:
        """See GrammarCursor."""
        row.fill(-1)  # what xgrammar leaves as it is when every token may follow
        self._matcher.fill_next_token_bitmask(row, 0)

    @property
    def is_complete(self) -> bool:
        """See GrammarCursor."""
        return bool(self._matcher.is_completed())

    def forced_bytes(self) -> bytes:
        """See GrammarCursor."""
        try:
            text: str = self._matcher.find_jump_forward_string()
        except UnicodeDecodeError as error:  # where the forced bytes begin or end within a character
            return error.object
        return text.encode()

    def rollback(self, num_tokens: int) -> None:
        """See GrammarCursor."""
        self._matcher.rollback(num_tokens)


class LLGuidanceCursor:
    """A cursor in a grammar that llguidance reads; see GrammarCursor. A fault of llguidance is a GenerationError."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        """See GrammarCursor."""
        accepted = self._matcher.try_consume_tokens([token_id]) == 1
        self._check()
        return accepted

    def fill(self, row: Bitmask) -> None:
        """See GrammarCursor."""
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        if self._fault() == "NoExtensionBias":
            row.fill(0)  # no token of the vocabulary goes on
        else:
            self._check()  # a matcher in error allows the end token alone, as if the text were complete

    @property
    def is_complete(self) -> bool:
        """See GrammarCursor."""
        return self._matcher.is_accepting()

    def forced_bytes(self) -> bytes:
        """See GrammarCursor."""
        return self._matcher.compute_ff_bytes()

    def rollback(self, num_tokens: int) -> None:
        """See GrammarCursor."""
        self._matcher.rollback(num_tokens)
        self._check()

    def _check(self) -> None:
        if fault := self._fault():
            raise GenerationError(f"llguidance cannot go on: {fault}")

    def _fault(self) -> str:
        return self._matcher.get_error().partition("\n")[0]

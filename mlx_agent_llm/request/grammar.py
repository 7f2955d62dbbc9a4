"""What the engine asks of a grammar: the protocols that stand between the core and whatever compiles constraints."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class CompiledGrammar(Protocol):
    """A grammar that is ready to be used."""

    def matcher(self) -> Matcher:
        """A new matcher at the start of the grammar."""


class Matcher(Protocol):
    """Where one request stands in its grammar. Made anew for every request, used by the engine thread alone."""

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False when the grammar does not allow it."""

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        """Write row `row` of the (rows, ceil(vocab / 32)) bitmask: bit i of the row says whether token i may follow."""

    def rollback(self, num_tokens: int) -> None:
        """Take back the last accepted tokens."""

    def jump_forward(self) -> bytes:
        """What the text has to go on with; empty where it may end or go on in several ways."""

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete and nothing but an end token could follow."""


class ForcedTokens(NamedTuple):
    """A text that has to come next, as tokens; those after the first num_safe could merge with what follows."""

    token_ids: list[int]
    num_safe: int


class Budget(Protocol):
    """Keeps the text of one request within reach of its end."""

    def take(self, token_id: int, num_left: int) -> bool:
        """Read a token, unless num_left tokens after it could not complete the text."""

    def closing_tokens(self) -> list[int]:
        """The tokens that complete the text."""

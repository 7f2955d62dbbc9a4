"""Items that must differ: what a grammar cannot count is kept beside it, by the texts that an array holds so far.

The library's mask is that of the grammar without this rule. A token of it is taken out when it ends an item that is
there already, or leaves an item no other end. Few tokens can do that: those that begin the rest of a finished item or
go on after it, and those that reach from one item into the next.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from mlx_agent_llm.constrain.backends import CompiledConstraint
from mlx_agent_llm.constrain.backends.cursor import Bitmask
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.pushdown import State
from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, DistinctNode, leaves
from mlx_agent_llm.languages.regular import finite_texts

_BITS = (np.uint32(1) << np.arange(32, dtype=np.uint32)).view(np.int32)
MAX_FEW = 4096  # of languages with so few texts every token that begins an item is looked at


class TokenTexts:
    """The tokens of a vocabulary by their bytes."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._pairs = sorted((text, token_id) for token_id, text in enumerate(texts) if text)
        self._texts = [text for text, _ in self._pairs]
        self._longest = max(map(len, texts), default=0)

    def related(self, text: bytes) -> Iterator[int]:
        """The tokens that the text begins with, and those that begin with the text."""
        for length in range(1, min(len(text), self._longest) + 1):
            yield from self._at(text[:length], whole=True)
        if len(text) < self._longest:
            yield from self._at(text, whole=False)

    @lru_cache(maxsize=64)  # noqa: B019  a vocabulary lives as long as its engine
    def matching(self, pattern: bytes) -> tuple[int, ...]:
        """The tokens in which a regular expression is found."""
        search = re.compile(pattern).search
        return tuple(token_id for text, token_id in self._pairs if search(text))

    def _at(self, text: bytes, whole: bool) -> Iterator[int]:
        index = bisect_left(self._texts, text)
        while index < len(self._texts) and (
            self._texts[index] == text if whole else self._texts[index].startswith(text)
        ):
            yield self._pairs[index][1]
            index += 1


class DistinctConstraint:
    """A grammar with DistinctNodes, compiled for one vocabulary; any number of matchers share it."""

    def __init__(
        self, compiled: CompiledConstraint, grammar: ContextFreeGrammar, closing: Closing, tokens: TokenTexts
    ) -> None:
        self._compiled = compiled
        self._nodes = [node for node in leaves(grammar) if isinstance(node, DistinctNode)]
        self.closing = closing
        self.tokens = tokens

    def matcher(self) -> DistinctMatcher:
        """A new matcher at the start of the grammar."""
        return DistinctMatcher(self._compiled.matcher(), self)

    @cached_property
    def containing(self) -> tuple[int, ...]:
        """The tokens that may hold a whole array."""
        return tuple(token_id for token_id in self.reaching if b"[" in self.closing.text_of(token_id))

    @cached_property
    def reaching(self) -> tuple[int, ...]:
        """The tokens that may reach from one item into the next, and there leave it no end.

        Of many texts none is near its last one at its first character, so there it takes two.
        """
        ends = b"[" + b"".join(sorted(re.escape(char).encode() for node in self._nodes for char in node.ends)) + b"]"
        has_few = any(finite_texts(node.language, MAX_FEW) is not None for node in self._nodes)
        begun = rb"[^,]*" if has_few else rb"[ \t\r\n]*[^ \t\r\n].+"
        return self.tokens.matching(rb"(?s)(^|" + ends + rb")[ \t\r\n]*," + begun)


class DistinctMatcher:
    """Implements the engine's Matcher: the matcher of the grammar, without what would repeat an item."""

    def __init__(self, matcher: GrammarMatcher, constraint: DistinctConstraint) -> None:
        self._matcher = matcher
        self._constraint = constraint
        self._closing, self._tokens = constraint.closing, constraint.tokens
        self._states = [self._closing.start()]

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False, with nothing changed, when the grammar does not allow it."""
        after = self._closing.advance(self._states[-1], self._closing.text_of(token_id))
        if not self._matcher.accept(token_id):
            return False
        if not self._matcher.has_ended and not self._closing.is_alive(after):
            self._matcher.rollback(1)
            return False
        self._states.append(after)
        return True

    def fill_mask(self, mask: Bitmask, row: int) -> None:
        """Write the tokens that may follow as row `row` of a (rows, ceil(vocab / 32)) bitmask."""
        self._matcher.fill_mask(mask, row)
        state, bits = self._states[-1], mask[row]
        for token_id in self._suspects(state):
            word, bit = divmod(token_id, 32)
            if bits[word] >> bit & 1:
                after = self._closing.advance(state, self._closing.text_of(token_id))
                if not self._closing.is_alive(after):
                    bits[word] &= ~_BITS[bit]
        if not bits.any():
            raise GenerationError("no token keeps the items different, although the text is not complete")

    @property
    def is_finished(self) -> bool:
        """Whether an end token was accepted, or the text is complete and only an end token could follow."""
        return self._matcher.is_finished

    def jump_forward(self) -> bytes:
        """What the text has to go on with, b"" where it may end or go on in several ways."""
        return self._matcher.jump_forward()

    def rollback(self, num_tokens: int) -> None:
        """Take the latest accepted tokens back."""
        self._matcher.rollback(num_tokens)
        del self._states[len(self._states) - num_tokens :]

    def _suspects(self, state: State) -> set[int]:
        """The tokens that may repeat an item, or leave one no other end."""
        found: set[int] = set()
        for stack in state.stacks:
            found.update(self._constraint.reaching if stack.series.has_begun else self._constraint.containing)
            for rest in map(str.encode, stack.series.rests):
                if not rest:
                    found.update(self._tokens.matching(rb"^[ \t\r\n]*[],]"))
                elif rest.startswith(state.partial):
                    found.update(self._tokens.related(rest[len(state.partial) :]))
        return found

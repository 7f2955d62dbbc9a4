"""Items that must differ: what a grammar cannot count is kept beside it, by the texts that an array holds so far.

The library's mask is that of the grammar without this rule. A token of it is taken out when it ends an item that is
there already, or leaves an item no other end. Few tokens can do that: those that begin the rest of a finished item or
go on after it, and those that reach from one item into the next.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from mlx_agent_llm.constrain.backends import CompiledConstraint
from mlx_agent_llm.constrain.backends.cursor import Bitmask
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.pushdown import Series, State
from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, DistinctNode, leaves
from mlx_agent_llm.languages.regular import Language, finite_texts, least_number_of_texts

_BITS = (np.uint32(1) << np.arange(32, dtype=np.uint32)).view(np.int32)
MAX_FEW = 4096  # of languages with so few texts every token that begins an item is looked at


class TokenTexts:
    """The tokens of a vocabulary by their bytes."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._pairs = sorted((text, token_id) for token_id, text in enumerate(texts) if text)
        self._texts = [text for text, _ in self._pairs]
        self._longest = max(map(len, texts), default=0)

    @lru_cache(maxsize=16384)  # noqa: B019  a vocabulary lives as long as its engine
    def repeating(self, leaf: Language, rest: str, partial: bytes, many: int) -> tuple[int, ...]:
        """The tokens that begin with the rest of a taken text, and those that may leave of a leaf only taken texts.

        partial: the bytes of the rest that are there already; many: more texts than are taken.
        """
        data, found = rest.encode(), list[int]()
        if not data.startswith(partial):
            return ()
        begin = end = 0
        for char in rest:
            leaf, begin, end = leaf.derive(char), end, end + len(char.encode())
            if begin >= len(partial) + self._longest:
                return tuple(found)
            if least_number_of_texts(leaf) < many:
                lengths = range(max(begin, len(partial)) + 1, end + 1)
                found += (one for length in lengths for one in self._at(data[len(partial) : length], whole=True))
        return (*found, *self._at(data[len(partial) :], whole=False))

    @lru_cache(maxsize=64)  # noqa: B019
    def matching(self, pattern: bytes) -> frozenset[int]:
        """The tokens in which a regular expression is found."""
        search = re.compile(pattern).search
        return frozenset(token_id for text, token_id in self._pairs if search(text))

    def _at(self, text: bytes, whole: bool) -> Iterator[int]:
        index = bisect_left(self._texts, text)
        while index < len(self._texts) and (
            self._texts[index] == text if whole else self._texts[index].startswith(text)
        ):
            yield self._pairs[index][1]
            index += 1


class DistinctConstraint:
    """A grammar with DistinctNodes, compiled for one vocabulary; any number of matchers share it.

    containing: the tokens that may hold a whole array. within, between: those that may reach from one item into the
    next, and there leave it no end, from within the one or from its end on; ending: those that may end an item.
    """

    def __init__(
        self, compiled: CompiledConstraint, grammar: ContextFreeGrammar, closing: Closing, tokens: TokenTexts
    ) -> None:
        self._compiled = compiled
        self.closing = closing
        self.tokens = tokens
        nodes = [node for node in leaves(grammar) if isinstance(node, DistinctNode)]
        ends = b"[" + b"".join(sorted({re.escape(char).encode() for node in nodes for char in node.ends})) + b"]"
        has_few = any(finite_texts(node.language, MAX_FEW) is not None for node in nodes)
        # Of many texts none is near its last one at its first character, so there it takes two.
        reach = rb"[ \t\r\n]*," + (rb"[^,]*" if has_few else rb"[ \t\r\n]*[^ \t\r\n].+")
        self.within = tokens.matching(rb"(?s)" + ends + reach)
        self.between = self.within | tokens.matching(rb"(?s)^" + reach)
        self.containing = frozenset(one for one in self.between if b"[" in closing.text_of(one))
        self.ending = tokens.matching(rb"^[ \t\r\n]*[],]")

    def matcher(self) -> DistinctMatcher:
        """A new matcher at the start of the grammar."""
        return DistinctMatcher(self._compiled.matcher(), self)


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
        suspects = np.fromiter(self._suspects(state), np.int64)
        for token_id in suspects[(bits[suspects // 32] >> suspects % 32 & 1).astype(bool)].tolist():
            after = self._closing.advance(state, self._closing.text_of(token_id))
            if not self._closing.is_alive(after):
                bits[token_id // 32] &= ~_BITS[token_id % 32]
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
        constraint = self._constraint
        for leaf, _, _, series in state.stacks:
            if not series.has_begun:
                found |= constraint.containing
                continue
            found |= constraint.between if _may_be_over(leaf, series) else constraint.within
            many = max(MAX_FEW, 1 << len(series.taken).bit_length())  # changes seldom: what is found is kept
            for rest in series.rests:
                if not rest:
                    found |= constraint.ending
                elif isinstance(leaf, Language):
                    found.update(self._tokens.repeating(leaf, rest, state.partial, many))
        return found


def _may_be_over(leaf: str | Language, series: Series) -> bool:
    """Whether an item may have its end here, or before: what stands between two items has few characters."""
    if isinstance(leaf, str) or leaf.is_nullable:
        return True
    return series.current is None and leaf.most is not None

"""Random walks through a grammar as a library compiled it, beside the pushdown automaton."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from mlx_agent_llm.constrain.backends.backends import MakeCursor
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher, TokenSets
from mlx_agent_llm.constrain.closing.pushdown import Pushdown, State
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.languages.context_free.reduced import reduced


class LibraryWalks:
    """Walks with the tokens of one vocabulary, whose last two end a text."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = tokens
        self.end = (len(tokens) - 2, len(tokens) - 1)
        self._token_sets = TokenSets(len(tokens), frozenset(range(len(tokens))), frozenset(self.end))

    def matcher(self, make_cursor: MakeCursor) -> GrammarMatcher:
        return GrammarMatcher(make_cursor(), self._token_sets)

    def next_tokens(self, one: GrammarMatcher) -> set[int]:
        mask = np.zeros((1, self._token_sets.num_words), np.int32)
        one.fill_mask(mask, 0)
        return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())

    def assert_agree(self, grammar: ContextFreeGrammar, make_cursor: MakeCursor, seed: int) -> None:
        """At each place the tokens that are allowed are those that the pushdown automaton allows."""
        pushdown, rng = Pushdown(reduced(grammar)), random.Random(seed)
        for _ in range(2):
            one, state, text = self.matcher(make_cursor), pushdown.start(), b""
            for _ in range(20):
                if len(state.stacks) > 200:
                    return  # a grammar that is hopelessly ambiguous: the pushdown automaton would take for ever
                allowed = self.next_tokens(one)
                assert allowed == self._possible_tokens(pushdown, state), text
                assert one._cursor.is_complete == (self.end[0] in allowed)
                assert one.is_finished == (allowed == set(self.end))
                if one.is_finished:
                    break
                token = rng.choice(sorted(allowed - set(self.end)))
                assert one.accept(token)
                text += self.tokens[token]
                state = pushdown.advance(state, self.tokens[token])

    def _possible_tokens(self, pushdown: Pushdown, state: State) -> set[int]:
        """What the pushdown automaton allows; every beginning in a reduced grammar has an end."""
        texts = [(i, data) for i, data in enumerate(self.tokens) if data]
        goes_on = {i for i, data in texts if _is_alive(pushdown, pushdown.advance(state, data))}
        return goes_on | (set(self.end) if state.is_complete and not state.partial else set())


def _is_alive(pushdown: Pushdown, state: State) -> bool:
    if state.partial:
        return state.partial == b"\xc3" and _is_alive(pushdown, pushdown.advance(state, b"\xa9"))
    leaves = [stack.leaf for stack in state.stacks]
    return state.is_complete or any(isinstance(leaf, str) or not leaf.is_empty() for leaf in leaves)

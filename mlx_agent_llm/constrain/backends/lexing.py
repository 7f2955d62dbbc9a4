"""Whether a lexer that takes the longest match reads a grammar exactly, and no text is lost to it.

A text is lost where a leaf p could end and something else follow, but another leaf that the parser would take there as
well, q, goes on with what follows: the lexer goes on with q. So all pairs of leaves that may be open at the same time
are found, each with the stack of calls that led there: as much of it as the two do not share, and one frame below.
What the network leaves out only makes a grammar look harder than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import NamedTuple

from mlx_agent_llm.constrain.backends.comparison import Comparison, TooComplexError, compare, first_of
from mlx_agent_llm.constrain.backends.network import ROOT, Network, State
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.languages.context_free.nodes import rule_names
from mlx_agent_llm.languages.regular import Language
from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_PAIRS = 20_000
MAX_DEPTH = 12  # calls that the stacks of two leaves do not share


def is_recursive(grammar: ContextFreeGrammar) -> bool:
    """Whether a rule that the root reaches leads back to itself."""
    begun: set[str] = set()
    done: set[str] = set()
    left = [(name, False) for name in rule_names(grammar.root)]
    while left:
        name, is_after = left.pop()
        if is_after:
            done.add(name)
        elif name not in done:
            if name in begun:
                return True
            begun.add(name)
            left.append((name, True))
            left += [(used, False) for used in rule_names(grammar.rules[name])]
    return False


def is_read_exactly(grammar: ContextFreeGrammar) -> bool:
    """Whether the longest match always is the right one; also False where that is too much to find out."""
    try:
        return _Search(Network(grammar)).finds_no_conflict()
    except TooComplexError:
        return False


Frames = tuple[State, ...]  # where calls return to, the innermost first


class _Configuration(NamedTuple):
    """An open leaf, the frames above those that are shared, and the callers that were found after shared frames."""

    state: State
    frames: Frames
    callers: tuple[State | None, ...]


class _Pair(NamedTuple):
    """Two leaves that may be open together; `base` is the innermost frame that their stacks share."""

    first: State
    first_frames: Frames
    second: State
    second_frames: Frames
    base: State | None


class _Search:
    """Visits every pair of leaves that may be open together."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._seen: set[_Pair] = set()
        self._left: list[_Pair] = []
        self._compared: dict[tuple[Language, Language, frozenset[Language]], Comparison] = {}
        self._firsts: dict[Language, CharSet] = {}
        self._followers: dict[tuple[State, Frames, State | None], list[_Configuration]] = {}

    def finds_no_conflict(self) -> bool:
        start = list(self._open(self._network.starts[ROOT], (), None))
        self._add(start, start, None)
        while self._left:
            if not self._visit(self._left.pop()):
                return False
        return True

    def _visit(self, pair: _Pair) -> bool:
        """Add the pairs after this one; return whether it is free of conflict."""
        after_first = self._after(pair.first, pair.first_frames, pair.base)
        after_second = self._after(pair.second, pair.second_frames, pair.base)
        forth = self._compare(pair.first, after_first, pair.second)
        back = self._compare(pair.second, after_second, pair.first)
        if forth.goes_on or back.goes_on:
            return False
        if forth.overlaps:
            self._add(after_first, after_second, pair.base)
        return True

    def _after(self, state: State, frames: Frames, base: State | None) -> list[_Configuration]:
        assert state.after is not None
        key = state, frames, base
        if key not in self._followers:
            self._followers[key] = list(self._open(state.after, frames, base))
        return self._followers[key]

    def _open(self, state: State, frames: Frames, base: State | None) -> Iterator[_Configuration]:
        """The leaves that may come first from a state on."""
        seen: set[_Configuration] = set()
        left = [_Configuration(state, frames, ())]
        while left:
            configuration = left.pop()
            if configuration in seen:
                continue
            seen.add(configuration)
            state, frames, callers = configuration
            if len(frames) > MAX_DEPTH or len(callers) > MAX_DEPTH:
                raise TooComplexError
            if state.leaf is not None:
                yield configuration
            elif state.call is not None and state.after is not None:
                inner = frames if state.after.is_end else (state.after, *frames)
                left.append(_Configuration(self._network.starts[state.call], inner, callers))
            elif not state.is_end:
                left += [_Configuration(branch, frames, callers) for branch in state.branches]
            elif frames:
                left.append(_Configuration(frames[0], frames[1:], callers))
            elif (below := callers[-1] if callers else base) is not None:
                left += [_Configuration(below, (), (*callers, caller)) for caller in self._network.callers(below.rule)]

    def _add(self, first: list[_Configuration], second: list[_Configuration], base: State | None) -> None:
        """Add the pairs of two leaves whose stacks agree on the callers."""
        is_same = first is second  # then the order of a pair says nothing
        pairs = combinations_with_replacement(first, 2) if is_same else product(first, second)
        for one, other in pairs:
            deeper = max(one.callers, other.callers, key=len)
            if all(deeper[: len(side.callers)] == side.callers for side in (one, other)):
                below = (base, *deeper)
                pair = _pair(one, other, below)
                if pair not in self._seen:
                    self._seen.add(pair)
                    self._left.append(pair)
        if len(self._seen) > MAX_PAIRS:
            raise TooComplexError

    def _compare(self, first: State, after: list[_Configuration], second: State) -> Comparison:
        assert first.leaf is not None and second.leaf is not None
        follow = frozenset(one.state.leaf for one in after if one.state.leaf is not None)
        key = first.leaf, second.leaf, follow
        if key not in self._compared:
            chars = CharSet(span for leaf in follow for span in self._first_of(leaf).ranges)
            self._compared[key] = compare(first.leaf, second.leaf, chars)
        return self._compared[key]

    def _first_of(self, leaf: Language) -> CharSet:
        if leaf not in self._firsts:
            self._firsts[leaf] = first_of(leaf)
        return self._firsts[leaf]


def _pair(one: _Configuration, other: _Configuration, below: tuple[State | None, ...]) -> _Pair:
    """Lay both stacks upon what they share: the frames of `below` that one of them has not left."""
    stacks = [
        (*side.frames, *(frame for frame in below[len(side.callers) : -1] if frame is not None))
        for side in (one, other)
    ]
    first, second = stacks
    base = below[-1]
    while first and second and first[-1] is second[-1]:
        base, first, second = first[-1], first[:-1], second[:-1]
    return _Pair(one.state, first, other.state, second, base)

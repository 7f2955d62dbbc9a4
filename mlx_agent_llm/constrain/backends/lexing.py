"""Whether a lexer that takes the longest match reads a grammar exactly, and no text is lost to it.

A text is lost where a leaf p could end and something else follow, but another leaf that the parser would take there as
well, q, goes on with what follows: the lexer goes on with q. So all pairs of leaves that may be open at the same time
are found, each with the stack of calls that led there: as much of it as the two do not share, and one frame below.
The grammar is taken as a recursive transition network (Woods 1970). Counts of repetitions are left out, and large ones
in leaves are taken to be open: whatever that finds in addition only makes a grammar look harder than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product
from typing import NamedTuple

from mlx_agent_llm.constrain.backends.relaxed import relaxed
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.context_free.nodes import rule_names
from mlx_agent_llm.languages.regular import NOTHING, Language, Literal, literal
from mlx_agent_llm.languages.regular.char_set import CharSet, coarsest_partition

MAX_PAIRS = 20_000
MAX_DEPTH = 12  # calls that the stacks of two leaves do not share
MAX_PRODUCT_STATES = 20_000


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
        return _Search(_Network(grammar)).finds_no_conflict()
    except _TooComplex:
        return False


class _TooComplex(Exception):
    pass


@dataclass(eq=False)
class _State:
    """A state of the network, in the body of a rule: at a leaf, at a call, at a branch, or at its end."""

    rule: str
    leaf: Language | None = None
    call: str | None = None
    after: _State | None = None  # the leaf or the call
    branches: list[_State] = field(default_factory=list)
    is_end: bool = False


Frames = tuple[_State, ...]  # where calls return to, the innermost first
_ROOT = ""  # the name of no rule


class _Network:
    """The states of all rules that the root reaches, and where each rule may return to."""

    def __init__(self, grammar: ContextFreeGrammar) -> None:
        self._bodies = {**grammar.rules, _ROOT: grammar.root}
        self._returns: dict[str, list[_State]] = {name: [] for name in self._bodies}
        self._tail_callers: dict[str, list[str]] = {name: [] for name in self._bodies}
        self._callers: dict[str, tuple[_State | None, ...]] = {}
        self.starts: dict[str, _State] = {}
        self._unread = [_ROOT]
        while self._unread:
            name = self._unread.pop()
            if name not in self.starts:
                self.starts[name] = self._build(self._bodies[name], _State(name, is_end=True))

    def callers(self, rule: str) -> tuple[_State | None, ...]:
        """The states that may come when a rule is over; None is the end of the text."""
        if rule not in self._callers:
            seen = dict.fromkeys([rule])
            for name in (queue := [rule]):
                fresh = [caller for caller in self._tail_callers[name] if caller not in seen]
                seen |= dict.fromkeys(fresh)
                queue += fresh
            found = dict.fromkeys(state for name in seen for state in self._returns[name])
            self._callers[rule] = (*found, None) if _ROOT in seen else (*found,)
        return self._callers[rule]

    def _build(self, node: Node, end: _State) -> _State:
        """The first state of a node that leads to `end`."""
        match node:
            case TextNode(value):
                return _State(end.rule, leaf=literal(value), after=end) if value else end
            case PatternNode(language):
                start = _State(end.rule, leaf=relaxed(language), after=end)
                return _State(end.rule, branches=[start, end]) if language.is_nullable else start
            case SequenceNode(parts):
                for part in reversed(parts):
                    end = self._build(part, end)
                return end
            case ChoiceNode(options):
                return _State(end.rule, branches=[self._build(option, end) for option in options])
            case RepeatNode(item, least, most):
                return self._build_repeat(item, least, most, end)
            case RuleNode(name):
                return self._build_call(name, end)

    def _build_repeat(self, item: Node, least: int, most: int | None, end: _State) -> _State:
        if most == 0:
            return end
        between = end if most == 1 else _State(end.rule)
        start = self._build(item, between)
        if most != 1:
            between.branches = [start, end]
        return start if least else _State(end.rule, branches=[start, end])

    def _build_call(self, name: str, end: _State) -> _State:
        self._unread.append(name)
        if end.is_end:
            self._tail_callers[name].append(end.rule)
        else:
            self._returns[name].append(end)
        return _State(end.rule, call=name, after=end)


class _Configuration(NamedTuple):
    """An open leaf, the frames above those that are shared, and the callers that were found after shared frames."""

    state: _State
    frames: Frames
    callers: tuple[_State | None, ...]


class _Pair(NamedTuple):
    """Two leaves that may be open together; `base` is the innermost frame that their stacks share."""

    first: _State
    first_frames: Frames
    second: _State
    second_frames: Frames
    base: _State | None


class _Search:
    """Visits every pair of leaves that may be open together."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._seen: set[_Pair] = set()
        self._left: list[_Pair] = []
        self._compared: dict[tuple[Language, Language, frozenset[Language]], _Comparison] = {}
        self._firsts: dict[Language, CharSet] = {}
        self._followers: dict[tuple[_State, Frames, _State | None], list[_Configuration]] = {}

    def finds_no_conflict(self) -> bool:
        start = list(self._open(self._network.starts[_ROOT], (), None))
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

    def _after(self, state: _State, frames: Frames, base: _State | None) -> list[_Configuration]:
        assert state.after is not None
        key = state, frames, base
        if key not in self._followers:
            self._followers[key] = list(self._open(state.after, frames, base))
        return self._followers[key]

    def _open(self, state: _State, frames: Frames, base: _State | None) -> Iterator[_Configuration]:
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
                raise _TooComplex
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

    def _add(self, first: list[_Configuration], second: list[_Configuration], base: _State | None) -> None:
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
            raise _TooComplex

    def _compare(self, first: _State, after: list[_Configuration], second: _State) -> _Comparison:
        assert first.leaf is not None and second.leaf is not None
        follow = frozenset(one.state.leaf for one in after if one.state.leaf is not None)
        key = first.leaf, second.leaf, follow
        if key not in self._compared:
            chars = CharSet(span for leaf in follow for span in self._first_of(leaf).ranges)
            self._compared[key] = _compare(first.leaf, second.leaf, chars)
        return self._compared[key]

    def _first_of(self, leaf: Language) -> CharSet:
        if leaf not in self._firsts:
            self._firsts[leaf] = _first_of(leaf)
        return self._firsts[leaf]


def _pair(one: _Configuration, other: _Configuration, below: tuple[_State | None, ...]) -> _Pair:
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


class _Comparison(NamedTuple):
    """overlaps: a text belongs to both; goes_on: one of the first, with what follows it, begins one of the second."""

    overlaps: bool
    goes_on: bool


def _compare(first: Language, second: Language, follow: CharSet) -> _Comparison:
    """Read both languages side by side. Empty texts do not count: the parser passes them by without the lexer."""
    if isinstance(first, Literal) and isinstance(second, Literal):
        after = second.text[len(first.text) :] if second.text.startswith(first.text) else ""
        return _Comparison(first is second, goes_on=bool(after) and after[0] in follow)
    overlaps = False
    seen = {(first, second)}
    for one, other in (queue := [(first, second)]):
        if len(seen) > MAX_PRODUCT_STATES:
            raise _TooComplex
        for after_one, after_other in _common_steps(one, other):
            if after_one.is_nullable:
                overlaps = overlaps or after_other.is_nullable
                if _first_of(after_other) & follow:
                    return _Comparison(overlaps, goes_on=True)
            if (after_one, after_other) not in seen:
                seen.add((after_one, after_other))
                queue.append((after_one, after_other))
    return _Comparison(overlaps, goes_on=False)


def _common_steps(one: Language, other: Language) -> Iterator[tuple[Language, Language]]:
    both = coarsest_partition(frozenset([*one.next_classes(), *other.next_classes()]))
    for char in both.examples:
        after_one, after_other = one.derive(char), other.derive(char)
        if after_one is not NOTHING and after_other is not NOTHING:
            yield after_one, after_other


def _first_of(language: Language) -> CharSet:
    """The characters that a text may begin with; some more where that is hard to see."""
    possible = (chars for chars in language.next_classes() if language.derive(chars.example()) is not NOTHING)
    return CharSet(span for chars in possible for span in chars.ranges)

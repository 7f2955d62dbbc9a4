"""Objects as rules: the named properties in their order, then others, with what is still missing as the state.

A name beside the named ones is written in one form only, so it cannot be another spelling of a named one. It may come
twice; then the last value counts, and that is as valid as the first. Where a property of some kind must exist, it is
the last one, so that nothing after it can replace it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from mlx_agent_llm.constrain.schema.values.formula import Formula, all_of
from mlx_agent_llm.constrain.schema.values.object_type import ALL_NAMES, ObjectType, Region, without_names
from mlx_agent_llm.constrain.schema.write.value_writer import ValueWriter
from mlx_agent_llm.languages.context_free import Node, RuleNode, TextNode, choice, sequence
from mlx_agent_llm.languages.regular import ANY_TEXT, complement, finite_texts, intersection

MAX_STATES = 5000
MAX_NAMES = 64
MAX_WITNESSES = 6


@dataclass(frozen=True)
class State:
    """What of an object so far decides how it may go on.

    index: of the next named property; their number, when others follow. is_first: whether nothing is written yet.
    count: of the properties, where it matters. missing: the witnesses that are still to come, as indices. is_closing:
    whether only witnesses may follow.
    """

    index: int
    is_first: bool
    count: int
    missing: frozenset[int]
    is_closing: bool = False


def write_object(writer: ValueWriter, objects: ObjectType) -> Node:
    """The node of an object type; its rules go to the writer."""
    return sequence(writer.notation.open, _StateWriter(writer, _simplified(writer, objects)).node())


def _simplified(writer: ValueWriter, objects: ObjectType) -> ObjectType:
    """The same objects with few names instead of a language, and without properties that cannot be."""
    objects = _with_few_witnesses(writer, objects)
    named, others = _told_apart(writer, objects)
    possible = [
        (name, named[name])
        for name in writer.notation.order(named)
        if name in objects.required or not writer.reader.is_surely_empty(named[name])
    ]
    is_below = objects.most is not None and not others and objects.most >= len(possible)
    most = None if is_below else objects.most
    least = _least_to_count(writer, objects, others)
    return replace(objects, named=tuple(possible), others=tuple(others), least=least, most=most)


def _with_few_witnesses(writer: ValueWriter, objects: ObjectType) -> ObjectType:
    if len(objects.witnesses) <= MAX_WITNESSES:
        return objects
    reason = f"more than {MAX_WITNESSES} properties of some kind must exist"
    writer.reader.refuse(objects.pointer, "not", reason)
    return replace(objects, witnesses=())


def _told_apart(writer: ValueWriter, objects: ObjectType) -> tuple[dict[str, Formula], list[Region]]:
    """The named properties, with those others whose names are few, and the rest of the others."""
    named, others = dict(objects.named), list[Region]()
    is_silent = objects.others == ALL_NAMES and not objects.witnesses and objects.least <= len(named)
    if objects.declares and is_silent and writer.closes_objects:
        return named, others
    for language, value in objects.others:
        if writer.reader.is_surely_empty(value) or (rest := without_names(language, list(named))).is_empty():
            continue
        names = finite_texts(rest, MAX_NAMES)
        if names is None:
            others.append((rest, value))
        else:
            named.update(dict.fromkeys(names, value))
    return named, others


def _least_to_count(writer: ValueWriter, objects: ObjectType, others: list[Region]) -> int:
    """How many properties must be counted, 0 where the required ones are enough."""
    least = objects.least if objects.least > len(objects.required) else 0
    if not others or least <= len(objects.required) + 1:
        return least
    reason = "a name beside the named properties could come twice and count once"
    writer.reader.refuse(objects.pointer, "minProperties", reason)
    return 0


class _StateWriter:
    def __init__(self, writer: ValueWriter, objects: ObjectType) -> None:
        self._writer = writer
        self._objects = objects
        self._witnesses = objects.witnesses
        self._names: dict[State, str] = {}
        self._open: list[State] = []

    def node(self) -> Node:
        """The properties and the bracket."""
        start = self._rule(State(0, True, 0, frozenset(range(len(self._witnesses)))))
        while self._open:
            state = self._open.pop()
            self._writer.book.rules[self._names[state]] = choice(list(self._options(state)))
            if len(self._names) > MAX_STATES:
                self._refuse()
                relaxed = replace(self._objects, witnesses=(), least=0, most=None)
                return _StateWriter(self._writer, relaxed).node()
        return start

    def _refuse(self) -> None:
        objects = self._objects
        keyword = "maxProperties" if objects.most else "minProperties" if objects.least else "properties"
        self._writer.reader.refuse(objects.pointer, keyword, "there are too many cases")

    def _rule(self, state: State) -> RuleNode:
        if state not in self._names:
            self._names[state] = self._writer.book.new_rule("members")
            self._open.append(state)
        return RuleNode(self._names[state])

    def _options(self, state: State) -> Iterator[Node]:
        if state.index < len(self._objects.named):
            yield from self._named(state)
            return
        if not state.missing and state.count >= self._objects.least:
            yield self._writer.notation.close
        if state.count != self._objects.most:
            if not state.is_closing:
                yield from self._others(state)
            yield from self._closing(state)

    def _named(self, state: State) -> Iterator[Node]:
        name, value = self._objects.named[state.index]
        if state.count != self._objects.most:
            key = sequence(self._separator(state), self._writer.notation.name(name), self._writer.notation.colon)
            about = [index for index in state.missing if self._witnesses[index][0].matches(name)]
            for found in _subsets(about):
                both = all_of(value, *(self._witnesses[index][1] for index in found))
                after = self._after(state, found, state.index + 1)
                yield sequence(key, self._writer.value(both), self._rule(after))
        if name not in self._objects.required:
            yield self._rule(State(state.index + 1, state.is_first, state.count, state.missing, state.is_closing))

    def _others(self, state: State) -> Iterator[Node]:
        """One more property beside the named ones, of any kind."""
        for language, value in self._objects.others:
            is_free = language is ANY_TEXT and not self._objects.named
            key = self._writer.notation.any_name() if is_free else self._writer.notation.names(language)
            after = self._rule(self._after(state, (), state.index))
            yield sequence(self._separator(state), key, self._writer.notation.colon, self._writer.value(value), after)

    def _closing(self, state: State) -> Iterator[Node]:
        """One more property that is a witness; after it only other witnesses follow, which have other names."""
        for found in _subsets(sorted(state.missing))[1:]:
            later = [complement(self._witnesses[index][0]) for index in sorted(state.missing - set(found))]
            for language, value in self._objects.others:
                names = intersection(language, *(self._witnesses[index][0] for index in found), *later)
                both = all_of(value, *(self._witnesses[index][1] for index in found))
                if not names.is_empty() and not self._writer.reader.is_surely_empty(both):
                    key = sequence(
                        self._separator(state), self._writer.notation.names(names), self._writer.notation.colon
                    )
                    after = self._after(state, found, state.index, is_closing=True)
                    yield sequence(key, self._writer.value(both), self._rule(after))

    def _after(self, state: State, found: tuple[int, ...], index: int, is_closing: bool = False) -> State:
        """After one more property; it is closing from a witness on that is written for its own sake."""
        counts = self._objects.least or self._objects.most is not None
        most = self._objects.most
        count = 0 if not counts else min(state.count + 1, self._objects.least if most is None else most)
        return State(index, False, count, state.missing - set(found), state.is_closing or is_closing)

    def _separator(self, state: State) -> Node:
        return TextNode("") if state.is_first else self._writer.notation.separator


def _subsets(indices: list[int]) -> list[tuple[int, ...]]:
    """All subsets, the empty one first."""
    return [subset for size in range(len(indices) + 1) for subset in combinations(indices, size)]

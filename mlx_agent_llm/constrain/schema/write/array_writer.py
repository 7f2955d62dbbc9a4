"""Arrays as rules: a rule for every index, count of contained items and set of used values that can be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

from mlx_agent_llm.constrain.schema.read.finite_values import finite_values
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType, Containment
from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, Formula, all_of, negation
from mlx_agent_llm.constrain.schema.values.types import Typed, TypeSet, constant_type
from mlx_agent_llm.constrain.schema.write.one_form import one_form
from mlx_agent_llm.constrain.schema.write.value_writer import ValueWriter
from mlx_agent_llm.languages.context_free import DistinctNode, Node, RepeatNode, RuleNode, TextNode, choice, sequence
from mlx_agent_llm.languages.regular import concat, finite_texts, literal

MAX_STATES = 1100  # ten values of which none comes twice take 2**10
MAX_ITEMS = 10_000
MAX_VALUES = 64
MAX_STATED_VALUES = 8  # of so few a rule for every set of used ones is small
MAX_CONTAINMENTS = 6
OPEN, CLOSE = TextNode("["), TextNode("]")


@dataclass(frozen=True)
class State:
    """What of an array so far decides how it may go on.

    index: of the next item, up to the one from which on all are alike. counts: of the items in each Containment, up to
    where more make no difference. used: the numbers of the values that must not come again.
    """

    index: int
    counts: tuple[int, ...]
    used: frozenset[int]


def write_array(writer: ValueWriter, arrays: ArrayType) -> Node:
    """The node of an array type; its rules go to the writer."""
    arrays = _with_possible_items(writer, arrays)
    if arrays.most is not None and arrays.least > arrays.most:
        return choice([])
    arrays = _with_few_containments(writer, arrays)
    if arrays.unique is False:
        return _with_a_pair(writer, arrays)
    if arrays.unique and (node := _distinct(writer, arrays)) is not None:
        return node
    values = _values_to_tell_apart(writer, arrays) if arrays.unique else {}
    if values or arrays.contains:
        return sequence(OPEN, _StateWriter(writer, arrays, values).node())
    return sequence(OPEN, _plain(writer, arrays))


def _with_possible_items(writer: ValueWriter, arrays: ArrayType) -> ArrayType:
    """The same arrays, without more items than there can be."""
    for keyword, count in (("minItems", arrays.least), ("maxItems", arrays.most or 0)):
        if count > MAX_ITEMS:
            writer.reader.refuse(arrays.pointer, keyword, f"{count} is above {MAX_ITEMS}, the most that is fast enough")
            arrays = replace(arrays, least=min(arrays.least, MAX_ITEMS), most=None)
    if not writer.reader.is_surely_empty(arrays.items):
        return arrays
    longest = len(arrays.prefix)
    return replace(arrays, most=longest if arrays.most is None else min(arrays.most, longest))


def _with_few_containments(writer: ValueWriter, arrays: ArrayType) -> ArrayType:
    """The same arrays, without containments that ask for nothing."""
    contains = tuple(part for part in arrays.contains if part.least or part.most is not None)
    if len(contains) > MAX_CONTAINMENTS:
        writer.reader.refuse(arrays.pointer, "contains", f"it is there more than {MAX_CONTAINMENTS} times")
        contains = ()
    return replace(arrays, contains=contains)


def _plain(writer: ValueWriter, arrays: ArrayType) -> Node:
    """The items and the bracket of arrays without counts of contained items."""
    prefix = arrays.prefix[: arrays.most]
    node = _tail(writer, arrays, len(prefix))
    for index in reversed(range(len(prefix))):
        node = sequence(writer.notation.separator if index else TextNode(""), writer.value(prefix[index]), node)
        if index >= arrays.least:
            node = writer.book.rule("items", choice([CLOSE, node]))
    return node


def _tail(writer: ValueWriter, arrays: ArrayType, index: int) -> Node:
    """The items from `index` on, all of one formula, and the bracket."""
    if arrays.most == index:
        return CLOSE
    item = writer.value(arrays.items)
    if index == 0:
        node = sequence(item, _tail(writer, arrays, 1))
        return node if arrays.least else choice([CLOSE, node])
    item = sequence(writer.notation.separator, item)
    needed = max(0, arrays.least - index)
    if arrays.most is not None:
        return sequence(RepeatNode(item, needed, arrays.most - index), CLOSE)
    name = writer.book.new_rule("items")
    writer.book.rules[name] = choice([CLOSE, sequence(item, RuleNode(name))])
    return sequence(RepeatNode(item, needed, needed), RuleNode(name)) if needed else RuleNode(name)


def _with_a_pair(writer: ValueWriter, arrays: ArrayType) -> Node:
    """The arrays in which a value comes twice, for each value that may."""
    arrays = replace(arrays, unique=None)
    values: dict[Formula, None] = {}
    for formula in dict.fromkeys((*arrays.prefix, arrays.items)):
        found = finite_values(writer.reader, formula, MAX_VALUES)
        if found is None:
            writer.reader.refuse(arrays.pointer, "uniqueItems", "its complement is exact for a few values only")
            return write_array(writer, arrays)
        values.update((Typed(constant_type(value)), None) for value in found)
    pairs = [replace(arrays, contains=(*arrays.contains, Containment(value, 2))) for value in values]
    return choice([writer.value(Typed(TypeSet(arrays=(pair,)))) for pair in pairs])


def _distinct(writer: ValueWriter, arrays: ArrayType) -> Node | None:
    """The arrays whose items are told apart by their texts, where they are alike and more than a few."""
    if arrays.prefix or arrays.contains or (arrays.most is not None and arrays.most < 2):
        return None
    if finite_values(writer.reader, arrays.items, MAX_STATED_VALUES) is not None:
        return None
    found = one_form(writer.reader, writer.notation, arrays.items)
    if found is None:
        return None
    language, ends = found
    texts = finite_texts(language, max(arrays.least, MAX_VALUES)) if arrays.least < MAX_ITEMS else None
    if texts is not None and len(texts) < arrays.least:
        return choice([])
    separator = writer.notation.separator.value
    later = DistinctNode(concat(literal(separator), language), separator, ends)
    most = None if arrays.most is None else arrays.most - 1
    items = sequence(DistinctNode(language, "", ends), RepeatNode(later, max(0, arrays.least - 1), most), CLOSE)
    return sequence(OPEN, items if arrays.least else choice([CLOSE, items]))


def _values_to_tell_apart(writer: ValueWriter, arrays: ArrayType) -> dict[int, list[Formula]]:
    """For the index of each item that another one may equal, all its values; one index stands for the rest."""
    reader, rest = writer.reader, len(arrays.prefix)
    several = arrays.most is None or arrays.most > rest + 1
    indices = range(rest + 1 if arrays.most is None else min(rest + 1, arrays.most))
    clashing = {rest} if several else set()
    for one, other in combinations(indices, 2):
        if not reader.is_surely_empty(all_of(arrays.item(one), arrays.item(other))):
            clashing |= {one, other}
    result: dict[int, list[Formula]] = {}
    for index in sorted(clashing):
        values = finite_values(reader, arrays.item(index), MAX_VALUES)
        if values is None:
            reader.refuse(
                arrays.pointer,
                "uniqueItems",
                "it is exact for items of a few values, and for those that have one text each",
            )
            return {}
        result[index] = [Typed(constant_type(value)) for value in values]
    return result


class _StateWriter:
    def __init__(self, writer: ValueWriter, arrays: ArrayType, values: dict[int, list[Formula]]) -> None:
        self._writer = writer
        self._arrays = arrays
        self._values = values
        numbered = dict.fromkeys(value for each in values.values() for value in each)
        self._numbers = {value: number for number, value in enumerate(numbered)}
        starts = (part.start for part in arrays.contains)
        self._last = max(1, len(arrays.prefix), arrays.least, arrays.most or 0, *starts)
        self._names: dict[State, str] = {}
        self._open: list[State] = []

    def node(self) -> Node:
        """The items and the bracket."""
        start = self._rule(State(0, (0,) * len(self._arrays.contains), frozenset()))
        while self._open:
            state = self._open.pop()
            self._writer.book.rules[self._names[state]] = choice(list(self._options(state)))
            if len(self._names) > MAX_STATES:
                keyword = "uniqueItems" if self._values else "contains"
                self._writer.reader.refuse(self._arrays.pointer, keyword, "there are too many cases")
                return _plain(self._writer, replace(self._arrays, contains=(), unique=None))
        return start

    def _rule(self, state: State) -> RuleNode:
        if state not in self._names:
            self._names[state] = self._writer.book.new_rule("items")
            self._open.append(state)
        return RuleNode(self._names[state])

    def _options(self, state: State) -> Iterator[Node]:
        arrays = self._arrays
        enough = all(count >= part.least for count, part in zip(state.counts, arrays.contains, strict=True))
        if state.index >= arrays.least and enough:
            yield CLOSE
        if state.index == arrays.most:
            return
        index = min(state.index + 1, self._last)
        for item, used in self._items(state):
            for formula, counts in self._counted(state):
                value = all_of(item, formula)
                if not self._writer.reader.is_surely_empty(value):
                    separator = self._writer.notation.separator if state.index else TextNode("")
                    yield sequence(separator, self._writer.value(value), self._rule(State(index, counts, used)))

    def _items(self, state: State) -> Iterator[tuple[Formula, frozenset[int]]]:
        """What the next item may be, and the values that are used then."""
        values = self._values.get(min(state.index, len(self._arrays.prefix)))
        if values is None:
            yield self._arrays.item(state.index), state.used
            return
        for value in values:
            if self._numbers[value] not in state.used:
                yield value, state.used | {self._numbers[value]}

    def _counted(self, state: State) -> Iterator[tuple[Formula, tuple[int, ...]]]:
        """The ways in which the next item may count, each with what it asks of the item."""
        ways = [
            _ways(part, state.index, count) for part, count in zip(self._arrays.contains, state.counts, strict=True)
        ]
        for way in product(*ways):
            yield all_of(*(formula for formula, _ in way)), tuple(count for _, count in way)


def _ways(part: Containment, index: int, count: int) -> list[tuple[Formula, int]]:
    if index < part.start or (part.most is None and count >= part.least):
        return [(EVERYTHING, count)]
    counted = [(part.formula, count + 1)] if part.most is None or count < part.most else []
    return [*counted, (EVERYTHING if part.most is None else negation(part.formula), count)]

"""Sets of Unicode characters as ranges of code points; lone surrogates are no characters and are in no set."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

LAST_CODE_POINT = 0x10FFFF
FIRST_SURROGATE, LAST_SURROGATE = 0xD800, 0xDFFF

Range = tuple[int, int]


class CharSet:
    """An immutable set of characters; `ranges` are its sorted, disjoint (low, high) code points, both included."""

    __slots__ = ("_hash", "ranges")
    ranges: tuple[Range, ...]

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        merged: list[Range] = []
        for low, high in sorted(_without_surrogates(ranges)):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(high, merged[-1][1])
            else:
                merged.append((low, high))
        self.ranges = tuple(merged)
        self._hash = hash(self.ranges)

    @staticmethod
    def _in_order(ranges: Iterable[Range]) -> CharSet:
        """Of ranges that are as they are kept already."""
        made = object.__new__(CharSet)
        made.ranges = tuple(ranges)
        made._hash = hash(made.ranges)
        return made

    @staticmethod
    @lru_cache(maxsize=4096)  # every text has one of its first character
    def of(text: str) -> CharSet:
        """The set of the characters of a text."""
        return CharSet((ord(char), ord(char)) for char in text)

    @staticmethod
    def span(first: str, last: str) -> CharSet:
        """The characters from `first` to `last`, both included."""
        return CharSet([(ord(first), ord(last))])

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet(self.ranges + other.ranges)

    def __and__(self, other: CharSet) -> CharSet:
        return CharSet._in_order(_common_ranges(self.ranges, other.ranges))

    def __invert__(self) -> CharSet:
        edges = [-1, *(edge for span in self.ranges for edge in span), LAST_CODE_POINT + 1]
        return CharSet((low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2], strict=True))

    def __sub__(self, other: CharSet) -> CharSet:
        return self & ~other

    def __contains__(self, char: str) -> bool:
        index = bisect_right(self.ranges, (ord(char), LAST_CODE_POINT)) - 1
        return index >= 0 and ord(char) <= self.ranges[index][1]

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        spans = (chr(low) if low == high else f"{chr(low)}-{chr(high)}" for low, high in self.ranges)
        return f"CharSet({''.join(spans)!r})"

    def isdisjoint(self, other: CharSet) -> bool:
        """Whether no character is in both."""
        return next(_common_ranges(self.ranges, other.ranges), None) is None

    def code_points(self) -> Iterator[int]:
        """All members, in order."""
        return (code for low, high in self.ranges for code in range(low, high + 1))

    def example(self) -> str:
        """A character with the fewest UTF-8 bytes: a letter or digit if there is one, else a printable one."""
        for preferred in (ALPHANUMERIC, PRINTABLE):
            if (first := next(_common_ranges(self.ranges, preferred.ranges), None)) is not None:
                return chr(first[0])
        return chr(self.ranges[0][0])


class Partition:
    """All characters, divided into disjoint classes."""

    def __init__(self, starts: list[int], indices: list[int], classes: list[list[Range]]) -> None:
        self.classes = tuple(map(CharSet, classes))
        self.examples = tuple(one.example() for one in self.classes)
        self._starts = starts  # of the stretches of code points
        self._indices = indices  # the class of each stretch, -1 of the surrogates

    def index_of(self, char: str) -> int:
        """The index of the class that a character is in; -1 of a surrogate."""
        return self._indices[bisect_right(self._starts, ord(char)) - 1]


@lru_cache(maxsize=4096)
def coarsest_partition(char_sets: frozenset[CharSet]) -> Partition:
    """The fewest classes of which every given set is a union: characters of a class are in the same sets."""
    toggles: defaultdict[int, int] = defaultdict(int)  # at a code point: a bit for each set that begins or ends there
    surrogates = 1 << len(char_sets)
    for edge in (FIRST_SURROGATE, LAST_SURROGATE + 1):
        toggles[edge] ^= surrogates
    for bit, char_set in enumerate(char_sets):
        for low, high in char_set.ranges:
            toggles[low] ^= 1 << bit
            toggles[high + 1] ^= 1 << bit
    starts = sorted({0, *toggles} - {LAST_CODE_POINT + 1})
    ends = [*starts[1:], LAST_CODE_POINT + 1]
    index_by_members: dict[int, int] = {surrogates: -1}
    classes: list[list[Range]] = []
    indices, members = [], 0
    for start, end in zip(starts, ends, strict=True):
        members ^= toggles.get(start, 0)
        index = index_by_members.setdefault(members, len(classes))
        if index == len(classes):
            classes.append([])
        if index >= 0:
            classes[index].append((start, end - 1))
        indices.append(index)
    return Partition(starts, indices, classes)


def _without_surrogates(ranges: Iterable[Range]) -> Iterator[Range]:
    for low, high in ranges:
        if low < FIRST_SURROGATE and low <= high:
            yield low, min(high, FIRST_SURROGATE - 1)
        if high > LAST_SURROGATE and low <= high:
            yield max(low, LAST_SURROGATE + 1), high


def _common_ranges(left: tuple[Range, ...], right: tuple[Range, ...]) -> Iterator[Range]:
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            yield low, high
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1


ANY_CHARACTER = ~CharSet()
ALPHANUMERIC = CharSet.span("0", "9") | CharSet.span("A", "Z") | CharSet.span("a", "z")
PRINTABLE = CharSet.span(" ", "~")

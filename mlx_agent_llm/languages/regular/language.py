"""The kinds of regular languages, as immutable nodes; nodes of equal structure are one object."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from functools import singledispatch
from operator import attrgetter
from typing import NoReturn
from weakref import WeakValueDictionary

from mlx_agent_llm.languages.regular.automaton import Automaton, build_automaton
from mlx_agent_llm.languages.regular.char_set import CharSet, Partition, coarsest_partition
from mlx_agent_llm.languages.regular.cheapest import cheapest_text, has_text
from mlx_agent_llm.languages.regular.lengths import longest_of, shortest_of, sum_of_lengths

Substitution = Callable[[CharSet], "Language"]

_serials = itertools.count()
_interned: WeakValueDictionary[Hashable, Language] = WeakValueDictionary()
_interning = threading.Lock()


class Language:
    """A set of texts; one of the kinds below, made by the functions of this package alone.

    children: the languages that it is made from. is_nullable: whether it holds the empty text. least, most: bounds of
    its texts' lengths in characters, most=None without end; least_bytes: of their lengths in UTF-8. is_plain: built
    without intersection and complement; then the bounds are reached, and it is empty only if it is `nothing()`.
    first_sets: sets of characters; derivatives by two characters that are in the same of them are the same.
    """

    __slots__ = (
        "__weakref__",
        "_derivatives",
        "_has_shortest",
        "_is_known_to_hold_text",
        "_partition",
        "_shortest",
        "children",
        "first_sets",
        "is_nullable",
        "is_plain",
        "least",
        "least_bytes",
        "most",
        "serial",
    )
    first_sets: frozenset[CharSet]

    def __init__(
        self,
        children: tuple[Language, ...],
        is_nullable: bool,
        least: int,
        most: int | None,
        least_bytes: int,
        is_plain: bool,
    ) -> None:
        self.children = children
        self.is_nullable, self.is_plain = is_nullable, is_plain
        self.least, self.most, self.least_bytes = least, most, least_bytes
        self.first_sets = frozenset().union(*(child.first_sets for child in self.first_children))
        self.serial = next(_serials)
        self._derivatives: dict[int, Language] = {}
        self._partition: Partition | None = None
        self._shortest: str | None = None
        self._has_shortest = False
        self._is_known_to_hold_text = False

    def derive(self, char: str) -> Language:
        """The language of what may follow `char`; remembered for the whole class of characters."""
        after = self._known_derivative(char)
        return self._find_derivative(char) if after is None else after

    def next_classes(self) -> tuple[CharSet, ...]:
        """Disjoint sets, together all characters: within one, derivatives are the same."""
        return self._classes().classes

    def matches(self, text: str) -> bool:
        """Whether the language holds a text."""
        language = self
        for char in text:
            language = language.derive(char)
            if language is NOTHING:
                return False
        return language.is_nullable

    def is_empty(self) -> bool:
        """Whether the language holds no text; ConstraintError when finding out takes too long."""
        if self.is_solved():
            return self.bound() is None
        if not self._is_known_to_hold_text and has_text(self):
            self.remember_not_empty()
        return not self._is_known_to_hold_text

    def shortest(self) -> str | None:
        """A text of the fewest UTF-8 bytes, None when there is none; ConstraintError when it takes too long."""
        if not self._has_shortest:
            self.remember_shortest(self._find_shortest())
        return self._shortest

    def remember_shortest(self, text: str | None) -> None:
        """Take what a search found out."""
        self._shortest, self._has_shortest = text, True

    def remember_not_empty(self) -> None:
        """Take what a search for any text found out."""
        self._is_known_to_hold_text = True

    def is_solved(self) -> bool:
        """Whether `shortest` answers without a search."""
        return self.is_plain or self._has_shortest

    def bound(self) -> int | None:
        """A lower bound of the bytes of all texts, exact when solved; None when there is known to be none."""
        if self._has_shortest:
            return None if self._shortest is None else len(self._shortest.encode())
        return None if self is NOTHING else self.least_bytes

    @property
    def first_children(self) -> tuple[Language, ...]:
        """The children in which a text may begin."""
        return self.children

    def automaton(self, max_states: int) -> Automaton | None:
        """A small deterministic automaton, or None when it has more states than that."""
        return build_automaton(self, max_states)

    def substitute(self, substitution: Substitution) -> Language:
        """The image under a map from the characters of a set to their texts.

        No two texts may have an image in common: then the map agrees with intersection and complement.
        """
        images: dict[Language, Language] = {}
        for node in self.bottom_up(images):
            images[node] = image(node, substitution, images)
        return images[self]

    def bottom_up(
        self, known: Container[Language], parts_of: Callable[[Language], Sequence[Language]] = attrgetter("children")
    ) -> Iterator[Language]:
        """All that it is made from, and it, each after its parts, but those that are known by then.

        Who iterates makes each known before it takes the next. Not recursive: a trie is as deep as its texts are long.
        """
        waiting = [self]
        while waiting:
            missing = [part for part in parts_of(waiting[-1]) if part not in known]
            if missing:
                waiting += missing
            elif (node := waiting.pop()) not in known:
                yield node

    def __copy__(self) -> Language:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Language:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Language cannot be pickled: equal ones are one object, which no other process has")

    def _classes(self) -> Partition:
        if self._partition is None:
            self._partition = coarsest_partition(self.first_sets)
        return self._partition

    def _known_derivative(self, char: str) -> Language | None:
        partition = self._partition or self._classes()
        return self._derivatives.get(partition.index_of(char))

    def _find_derivative(self, char: str) -> Language:
        todo = [self]
        while todo:  # not recursive: a language may be deep
            missing = [child for child in todo[-1].first_children if child._known_derivative(char) is None]
            if missing:
                todo += missing
            else:
                node = todo.pop()
                index = node._classes().index_of(char)
                after = node._derivatives[index] = NOTHING if index < 0 else derivative(node, char)
        return after

    def _find_shortest(self) -> str | None:
        return _plain_shortest(self) if self.is_plain else cheapest_text(self)


class Literal(Language):
    """Exactly one text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__((), not text, len(text), len(text), len(text.encode()), True)
        self.text = text
        self.first_sets = frozenset([CharSet.of(text[0])] if text else [])


class Characters(Language):
    """Any one character of a set of two or more; the set is empty in `nothing()` alone."""

    __slots__ = ("char_set",)

    def __init__(self, char_set: CharSet) -> None:
        super().__init__((), False, 1, 1, len(char_set.example().encode()) if char_set else 1, True)
        self.char_set = char_set
        self.first_sets = frozenset([char_set])


class Concat(Language):
    """A text of each part, one after the other; two parts or more."""

    __slots__ = ("_tail",)

    def __init__(self, parts: tuple[Language, ...]) -> None:
        super().__init__(
            parts,
            all(part.is_nullable for part in parts),
            sum(part.least for part in parts),
            sum_of_lengths(part.most for part in parts),
            sum(part.least_bytes for part in parts),
            all(part.is_plain for part in parts),
        )
        self._tail: Language | None = None

    @property
    def tail(self) -> Language:
        """What follows the first part."""
        if self._tail is None:
            self._tail = intern_concat(self.children[1:])
        return self._tail

    @property
    def first_children(self) -> tuple[Language, ...]:
        """The parts up to the first that is never empty."""
        end = next((index for index, part in enumerate(self.children, 1) if not part.is_nullable), None)
        return self.children[:end]

    def heads(self) -> Iterator[tuple[Language, tuple[Language, ...]]]:
        """Each part in which a text may begin, with the parts after it."""
        return ((part, self.children[index:]) for index, part in enumerate(self.first_children, 1))


class Union(Language):
    """The texts of any option; two options or more."""

    __slots__ = ()

    def __init__(self, options: tuple[Language, ...]) -> None:
        super().__init__(
            options,
            any(option.is_nullable for option in options),
            min(option.least for option in options),
            longest_of(option.most for option in options),
            min(option.least_bytes for option in options),
            all(option.is_plain for option in options),
        )


class Intersection(Language):
    """The texts that every part holds; two parts or more."""

    __slots__ = ()

    def __init__(self, parts: tuple[Language, ...]) -> None:
        super().__init__(
            parts,
            all(part.is_nullable for part in parts),
            max(part.least for part in parts),
            shortest_of(part.most for part in parts),
            max(part.least_bytes for part in parts),
            False,
        )


class Complement(Language):
    """The texts that another language does not hold."""

    __slots__ = ("inner",)

    def __init__(self, inner: Language) -> None:
        least = 1 if inner.is_nullable else 0
        super().__init__((inner,), not inner.is_nullable, least, None, least, False)
        self.inner = inner


class Repeat(Language):
    """`least_count` to `most_count` texts of the item, one after the other; most_count=None is without end."""

    __slots__ = ("item", "least_count", "most_count")

    def __init__(self, item: Language, least: int, most: int | None) -> None:
        longest = None if most is None or item.most is None else item.most * most
        super().__init__((item,), least == 0, item.least * least, longest, item.least_bytes * least, item.is_plain)
        self.item, self.least_count, self.most_count = item, least, most


@singledispatch
def derivative(language: Language, char: str) -> Language:
    """What may follow a character; of which kinds, derivatives.py says."""
    raise NotImplementedError(type(language))


@singledispatch
def image(language: Language, substitution: Substitution, images: dict[Language, Language]) -> Language:
    """The image under a substitution, given those of the children; of which kinds, derivatives.py says."""
    raise NotImplementedError(type(language))


def intern_language(kind: Callable[..., Language], key: Hashable, *fields: object) -> Language:
    """The one node of this kind and key, made from its fields if there is none.

    Keys name other nodes by their serial numbers: a reference would keep a node alive for ever through its derivatives.
    """
    language = _interned.get((kind, key))
    if language is None:
        made = kind(*fields)
        with _interning:
            language = _interned.setdefault((kind, key), made)
    return language


def intern_concat(parts: tuple[Language, ...]) -> Language:
    """The concatenation of parts that are in normal form already."""
    if len(parts) < 2:
        return parts[0] if parts else EMPTY_TEXT
    return intern_language(Concat, tuple(part.serial for part in parts), parts)


def intern_set(kind: type[Union] | type[Intersection], members: Iterable[Language]) -> Language:
    """The union or intersection of two or more members that are in normal form already."""
    found = tuple(members)
    return intern_language(kind, frozenset(member.serial for member in found), found)


NOTHING = intern_language(Characters, CharSet(), CharSet())
EMPTY_TEXT = intern_language(Literal, "", "")


def _plain_shortest(language: Language) -> str | None:
    """The shortest text by structure, from left to right; a stack, because tries are deep."""
    if language is NOTHING:
        return None
    pieces, todo = [], [language]
    while todo:
        match todo.pop():
            case Concat(children=parts):
                todo += reversed(parts)
            case Union(children=options):
                todo.append(min(options, key=lambda option: option.least_bytes))
            case Repeat(item=item, least_count=count):
                pieces += [item.shortest() or ""] * count if count else []
            case Literal(text=text):
                pieces.append(text)
            case Characters(char_set=char_set):
                pieces.append(char_set.example())
            case node:
                pieces.append(node.shortest() or "")
    return "".join(pieces)

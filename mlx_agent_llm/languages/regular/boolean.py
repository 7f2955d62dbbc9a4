"""Union, intersection and complement in their normal forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlx_agent_llm.languages.regular.alternatives import (
    alternatives,
    character_set,
    distinct,
    is_one_character,
    join_intervals,
    union_of_sets,
)
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER
from mlx_agent_llm.languages.regular.concatenation import ANY_CHAR, ANY_TEXT, characters, counts_of, members, repeat
from mlx_agent_llm.languages.regular.language import (
    EMPTY_TEXT,
    NOTHING,
    Characters,
    Complement,
    Intersection,
    Language,
    Literal,
    Repeat,
    Union,
    intern_language,
    intern_set,
)
from mlx_agent_llm.languages.regular.lengths import shortest_of


def union(*languages: Language) -> Language:
    """The texts of any of the languages; in the normal form there is at most one complement."""
    options = distinct(Union, languages)
    inners = [option.inner for option in options if isinstance(option, Complement)]
    if any(inner in options for inner in inners):
        return ANY_TEXT
    if len(inners) > 1:
        others = [option for option in options if not isinstance(option, Complement)]
        return union(complement(intersection(*inners)), *others)
    return alternatives(options)


def complement(language: Language) -> Language:
    """All texts but those of a language."""
    if isinstance(language, Complement):
        return language.inner
    if language is NOTHING:
        return ANY_TEXT
    if all(map(_is_any_of_length, members(Union, language))):
        return union(*_other_lengths(members(Union, language)))
    return intern_language(Complement, language.serial, language)


def intersection(*languages: Language) -> Language:
    """The texts that all of the languages hold; all texts, when there is none.

    In the normal form there is at most one complement and at most one counted repeat of characters, and nothing that
    follows from the lengths of the rest.
    """
    parts = distinct(Intersection, languages)
    parts.pop(ANY_TEXT, None)
    inners = [part.inner for part in parts if isinstance(part, Complement)]
    if NOTHING in parts or any(inner in parts for inner in inners):
        return NOTHING
    if len(parts) < 2:
        return next(iter(parts), ANY_TEXT)
    if len(inners) > 1:
        others = [part for part in parts if not isinstance(part, Complement)]
        return intersection(*others, complement(union(*inners)))
    short = next((part for part in parts if isinstance(part, Literal | Characters)), None)
    if short is not None:
        return _restrict(short, [part for part in parts if part is not short])
    counted = [part for part in parts if isinstance(part, Repeat) and is_one_character(part.item)]
    if len(counted) > 1:
        return intersection(_intersect_repeats(counted), *(part for part in parts if part not in counted))
    kept = _intersect_lengths(list(parts))
    if len(kept) < 2:
        return kept[0]
    return intern_set(Intersection, kept)


def are_disjoint(left: Language, right: Language) -> bool:
    """Whether no text is in both languages."""
    return intersection(left, right).is_empty()


def _is_any_of_length(language: Language) -> bool:
    """Whether the language is told by lengths alone."""
    return language is EMPTY_TEXT or counts_of(language)[0] is ANY_CHAR


def _other_lengths(languages: Iterable[Language]) -> Iterator[Language]:
    """The texts of all other lengths, for languages that are told by lengths alone."""
    least = 0
    for low, high in join_intervals(map(_lengths, languages)):
        if low > least:
            yield repeat(ANY_CHAR, least, low - 1)
        if high is None:
            return
        least = high + 1
    yield repeat(ANY_CHAR, least)


def _lengths(language: Language) -> tuple[int, int | None]:
    return (0, 0) if language is EMPTY_TEXT else counts_of(language)[1:]


def _restrict(short: Language, others: list[Language]) -> Language:
    """What others hold of a literal or of single characters."""
    if isinstance(short, Literal):
        return short if all(other.matches(short.text) for other in others) else NOTHING
    char_set = character_set(short)
    for other in others:
        char_set &= union_of_sets(chars for chars in other.next_classes() if other.derive(chars.example()).is_nullable)
    return characters(char_set)


def _intersect_repeats(counted: list[Repeat]) -> Language:
    char_set = ANY_CHARACTER
    for part in counted:
        char_set &= character_set(part.item)
    least = max(part.least_count for part in counted)
    most = shortest_of(part.most_count for part in counted)
    return NOTHING if most is not None and least > most else repeat(characters(char_set), least, most)


def _intersect_lengths(parts: list[Language]) -> list[Language]:
    """Leave out what follows from the lengths of the other parts, and all when the lengths exclude each other."""
    least, most = max(part.least for part in parts), shortest_of(part.most for part in parts)
    if most is not None and least > most:
        return [NOTHING]
    kept = [part for part in parts if not (isinstance(part, Complement) and _misses(part.inner, least, most))]
    for part in kept:
        others = [other for other in kept if other is not part]
        if _is_any_of_length(part) and others and _covers(part, others):
            return others
    return kept


def _misses(language: Language, least: int, most: int | None) -> bool:
    """Whether all texts of a language are shorter or longer than these bounds."""
    return (language.most is not None and language.most < least) or (most is not None and language.least > most)


def _covers(part: Language, others: list[Language]) -> bool:
    """Whether the lengths of a part allow whatever the others can hold."""
    most = shortest_of(other.most for other in others)
    return part.least <= max(other.least for other in others) and (
        part.most is None or (most is not None and most <= part.most)
    )

"""All texts of a language, where they are few, or some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial, reduce
from itertools import accumulate, islice, product
from math import prod

from mlx_agent_llm.languages.regular.automaton import Automaton
from mlx_agent_llm.languages.regular.language import (
    Characters,
    Complement,
    Concat,
    Language,
    Literal,
    Repeat,
    Union,
)

MANY = 1 << 32


class _TooManyError(Exception):
    """There are more texts than asked for, or nobody can tell."""


def finite_texts(language: Language, limit: int) -> list[str] | None:
    """All texts of a language, or None where they are more than `limit` or hard to find."""
    if language.most is None and (language.is_plain or _is_rest_of_finite(language)):
        return None
    try:
        return _from_structure(language, limit) if language.is_plain else _from_automaton(language, limit)
    except _TooManyError:
        return None


@lru_cache(maxsize=4096)
def some_texts(language: Language, count: int) -> tuple[str, ...]:
    """So many different texts of a language, short ones first, or all of them where they are fewer."""
    found: list[str] = []
    layer = [("", language)]  # beginnings that lead to a text each, so no more of them than `count` are needed
    while layer and len(found) < count:
        found += [text for text, rest in layer if rest.is_nullable]
        following = [
            (text + chr(code), after)
            for text, rest in layer
            for chars in rest.next_classes()
            if not (after := rest.derive(chars.example())).is_empty()
            for code in islice(chars.code_points(), count)
        ]
        layer = sorted(following, key=lambda beginning: beginning[1].least)[:count]
    return tuple(found[:count])


@lru_cache(maxsize=4096)
def least_number_of_texts(language: Language) -> int:
    """A lower bound of how many texts a language has, MANY at most; 0 where only a search could tell."""
    if not language.is_plain:
        return 0
    found: dict[Language, int] = {}
    for node in language.bottom_up(found):
        found[node] = MANY if node.most is None else min(_least_number(node, found), MANY)
    return found[language]


def _least_number(node: Language, found: Mapping[Language, int]) -> int:
    """Of texts of parts that are equally long, every combination is a text of its own."""
    match node:
        case Characters(char_set=char_set):
            return len(char_set)
        case Concat():
            rigid = (found[part] for part in node.children if part.least == part.most)
            return max(prod(rigid), *(found[part] for part in node.children))
        case Union():
            return max(found[part] for part in node.children)
        case Repeat(item=item, most_count=most) if most is not None:
            is_rigid = item.least == item.most
            return found[item] ** min(most, MANY.bit_length()) if is_rigid else found[item]
    return 1


def _is_rest_of_finite(language: Language) -> bool:
    return isinstance(language, Complement) and language.inner.most is not None


def _from_structure(language: Language, limit: int) -> list[str]:
    """Sorted; of a language without intersections and complements, no part has more texts than the whole."""
    found: dict[Language, set[str]] = {}
    for node in language.bottom_up(found):
        found[node] = _join(node, [found[part] for part in node.children], limit)
        if len(found[node]) > limit:
            raise _TooManyError
    return sorted(found[language])


def _join(node: Language, parts: list[set[str]], limit: int) -> set[str]:
    """The texts of a node, or some of them where they are more than `limit`."""
    match node:
        case Literal(text=text):
            return {text}
        case Characters(char_set=char_set):
            return set(map(chr, islice(char_set.code_points(), limit + 1)))
        case Concat():
            return reduce(partial(_product, limit=limit), parts)
        case Union():
            return set().union(*parts)
        case Repeat(least_count=least, most_count=most) if most is not None:
            return _repeated(parts[0], least, most, limit)
    raise AssertionError(f"a language of kind {type(node).__name__} has no end, or is not plain")


def _product(one: set[str], other: set[str], limit: int) -> set[str]:
    if len(one) * len(other) > 4 * limit:  # few of them are the same
        raise _TooManyError
    return {text + rest for text, rest in product(one, other)}


def _repeated(texts: set[str], least: int, most: int, limit: int) -> set[str]:
    if most - least > limit:
        raise _TooManyError
    if len(texts) == 1:
        return {text * count for text in texts for count in range(least, most + 1)}
    several = accumulate([texts] * most, partial(_product, limit=limit), initial={""})
    return set().union(*islice(several, least, None))


def _from_automaton(language: Language, limit: int) -> list[str]:
    automaton = language.automaton(4 * limit)
    if automaton is None:
        raise _TooManyError
    return list(_texts(automaton, limit))


def _texts(automaton: Automaton, limit: int) -> Iterator[str]:
    open_texts = [("", 0)]
    count = 0
    while open_texts:
        text, state = open_texts.pop()
        count += state in automaton.accepting
        if count > limit or len(text) > len(automaton.transitions) or len(open_texts) > limit:
            raise _TooManyError
        if state in automaton.accepting:
            yield text
        for chars, target in reversed(automaton.transitions[state]):
            if len(chars) > limit:
                raise _TooManyError
            open_texts += [
                (text + chr(code), target) for low, high in reversed(chars.ranges) for code in range(high, low - 1, -1)
            ]

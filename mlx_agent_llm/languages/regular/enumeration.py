"""All texts of a language, where they are few, or some of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from mlx_agent_llm.languages.regular.automaton import Automaton
from mlx_agent_llm.languages.regular.language import Language


class _TooManyError(Exception):
    """There are more texts than asked for, or nobody can tell."""


def finite_texts(language: Language, limit: int) -> list[str] | None:
    """All texts of a language, or None where they are more than `limit` or hard to find."""
    automaton = language.automaton(4 * limit) if language.most is not None or not language.is_plain else None
    if automaton is None:
        return None
    try:
        return list(_texts(automaton, limit))
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

"""All texts of a language, where they are few."""

from __future__ import annotations

from collections.abc import Iterator

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

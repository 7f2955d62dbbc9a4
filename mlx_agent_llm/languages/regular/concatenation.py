"""Texts one after the other: literals, characters, concatenations and counted repeats in their normal forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet
from mlx_agent_llm.languages.regular.language import (
    EMPTY_TEXT,
    NOTHING,
    Characters,
    Concat,
    Language,
    Literal,
    Repeat,
    Union,
    intern_concat,
    intern_language,
    intern_set,
)
from mlx_agent_llm.languages.regular.lengths import sum_of_lengths


def nothing() -> Language:
    """The language without any text."""
    return NOTHING


def empty_text() -> Language:
    """The language of the empty text alone."""
    return EMPTY_TEXT


def literal(text: str) -> Language:
    """The language of this text alone."""
    try:
        return intern_language(Literal, text, text)
    except UnicodeEncodeError as error:
        raise ConstraintError(f"text={text!r} holds a lone surrogate, which no output can hold") from error


def characters(char_set: CharSet) -> Language:
    """The language of every single character of a set."""
    if len(char_set.ranges) == 1 and char_set.ranges[0][0] == char_set.ranges[0][1]:
        return literal(chr(char_set.ranges[0][0]))
    return intern_language(Characters, char_set, char_set)


ANY_CHAR = characters(ANY_CHARACTER)


def concat(*languages: Language) -> Language:
    """The texts of each language, one after the other."""
    if NOTHING in languages:
        return NOTHING
    parts: list[Language] = []
    for part in _with_whole_texts(part for language in languages for part in members(Concat, language)):
        while parts and (joined := _join(parts[-1], part)) is not None:
            part = joined
            parts.pop()
        if part is not EMPTY_TEXT:
            parts.append(part)
    return intern_concat(tuple(parts))


def repeat(language: Language, least: int, most: int | None = None) -> Language:
    """`least` to `most` texts of a language, one after the other; most=None is without end."""
    assert 0 <= least and (most is None or least <= most), f"least={least}, most={most} is no range"
    if most == 0 or language is EMPTY_TEXT or (language is NOTHING and least == 0):
        return EMPTY_TEXT
    if (least, most) == (1, 1) or language is NOTHING:
        return language
    if language.is_nullable:
        language, least = _without_empty_text(language), 0
    if isinstance(language, Repeat) and (product := _multiply(language, least, most)) is not None:
        return product
    return intern_language(Repeat, (language.serial, least, most), language, least, most)


ANY_TEXT = repeat(ANY_CHAR, 0)


def _with_whole_texts(parts: Iterable[Language]) -> Iterator[Language]:
    """The parts with neighbouring texts as one, which are many where characters have been replaced one by one."""
    for is_text, run in groupby(parts, lambda part: isinstance(part, Literal)):
        if is_text:
            yield literal("".join(part.text for part in run if isinstance(part, Literal)))
        else:
            yield from run


def _join(left: Language, right: Language) -> Language | None:
    """One node for two neighbours in a concatenation: literals, counts of one item, or any text and less."""
    if isinstance(left, Literal) and isinstance(right, Literal):
        return literal(left.text + right.text)
    if (left is ANY_TEXT and right.is_nullable) or (right is ANY_TEXT and left.is_nullable):
        return ANY_TEXT
    left_item, left_least, left_most = counts_of(left)
    right_item, right_least, right_most = counts_of(right)
    if left_item is not right_item:
        return None
    return repeat(left_item, left_least + right_least, sum_of_lengths([left_most, right_most]))


def counts_of(language: Language) -> tuple[Language, int, int | None]:
    """The item, least and most count of a language, which is once itself if it is no repeat."""
    if isinstance(language, Repeat):
        return language.item, language.least_count, language.most_count
    return language, 1, 1


def _multiply(language: Repeat, least: int, most: int | None) -> Language | None:
    """A repeat of a repeat as one of its item, None where its counts would leave gaps."""
    low, high = language.least_count, language.most_count
    meets_next = low <= 1 or (least > 0 and (high is None or least * (high - low) + 1 >= low))
    if not meets_next and least != most:
        return None
    return repeat(language.item, low * least, None if most is None or high is None else high * most)


def _without_empty_text(language: Language) -> Language:
    if isinstance(language, Union) and EMPTY_TEXT in language.children:
        options = [option for option in language.children if option is not EMPTY_TEXT]
        return options[0] if len(options) == 1 else intern_set(Union, options)
    return language


def members(kind: type[Language], language: Language) -> tuple[Language, ...]:
    """The children of a language of this kind, and the language alone if it is of another."""
    return language.children if isinstance(language, kind) else (language,)

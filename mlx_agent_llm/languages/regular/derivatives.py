"""Derivatives and images, kind by kind."""

from __future__ import annotations

from mlx_agent_llm.languages.regular.boolean import complement, intersection, union
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet
from mlx_agent_llm.languages.regular.concatenation import concat, literal, repeat
from mlx_agent_llm.languages.regular.language import (
    EMPTY_TEXT,
    NOTHING,
    Characters,
    Complement,
    Concat,
    Intersection,
    Language,
    Literal,
    Repeat,
    Substitution,
    Union,
    derivative,
    image,
)

Images = dict[Language, Language]


@derivative.register
def _derive_literal(language: Literal, char: str) -> Language:
    return literal(language.text[1:]) if language.text.startswith(char) else NOTHING


@derivative.register
def _derive_characters(language: Characters, char: str) -> Language:
    return EMPTY_TEXT if char in language.char_set else NOTHING


@derivative.register
def _derive_concat(language: Concat, char: str) -> Language:
    return union(*(concat(head.derive(char), *rest) for head, rest in language.heads()))


@derivative.register
def _derive_union(language: Union, char: str) -> Language:
    return union(*(option.derive(char) for option in language.children))


@derivative.register
def _derive_intersection(language: Intersection, char: str) -> Language:
    return intersection(*(part.derive(char) for part in language.children))


@derivative.register
def _derive_complement(language: Complement, char: str) -> Language:
    return complement(language.inner.derive(char))


@derivative.register
def _derive_repeat(language: Repeat, char: str) -> Language:
    most = None if language.most_count is None else language.most_count - 1
    return concat(language.item.derive(char), repeat(language.item, max(0, language.least_count - 1), most))


@image.register
def _map_literal(language: Literal, substitution: Substitution, images: Images) -> Language:
    return concat(*(substitution(CharSet.of(char)) for char in language.text))


@image.register
def _map_characters(language: Characters, substitution: Substitution, images: Images) -> Language:
    return substitution(language.char_set) if language.char_set else NOTHING


@image.register
def _map_concat(language: Concat, substitution: Substitution, images: Images) -> Language:
    return concat(*(images[part] for part in language.children))


@image.register
def _map_union(language: Union, substitution: Substitution, images: Images) -> Language:
    return union(*(images[option] for option in language.children))


@image.register
def _map_intersection(language: Intersection, substitution: Substitution, images: Images) -> Language:
    return intersection(*(images[part] for part in language.children))


@image.register
def _map_complement(language: Complement, substitution: Substitution, images: Images) -> Language:
    every = repeat(substitution(ANY_CHARACTER), 0)
    return intersection(every, complement(images[language.inner]))


@image.register
def _map_repeat(language: Repeat, substitution: Substitution, images: Images) -> Language:
    return repeat(images[language.item], language.least_count, language.most_count)

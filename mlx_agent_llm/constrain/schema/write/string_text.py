"""Languages of texts as languages of their JSON strings."""

from __future__ import annotations

from functools import lru_cache

from mlx_agent_llm.constrain.schema.values.json_text import write_json
from mlx_agent_llm.languages.regular import Language, Literal, characters, concat, literal, repeat, union
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet

ESCAPED = CharSet.of('"\\') | CharSet.span("\x00", "\x1f")


def quoted(language: Language) -> Language:
    """The JSON strings of texts; a character is escaped only where JSON asks for it, so each has one form."""
    if isinstance(language, Literal):
        return literal(write_json(language.text))
    return concat(literal('"'), language.substitute(_write_characters), literal('"'))


@lru_cache(maxsize=4096)  # the letters of names and constants
def _write_characters(chars: CharSet) -> Language:
    escaped = [
        literal(write_json(chr(code))[1:-1]) for low, high in (chars & ESCAPED).ranges for code in range(low, high + 1)
    ]
    return union(characters(chars - ESCAPED), *escaped)


def _free_string() -> Language:
    """All JSON strings with all escapes, but none of a lone surrogate, or of a pair: it has a shorter form."""
    hexadecimal = CharSet.span("0", "9") | CharSet.span("a", "f") | CharSet.span("A", "F")
    any_hex = characters(hexadecimal)
    below_surrogates = concat(characters(CharSet.of("dD")), characters(CharSet.span("0", "7")), any_hex, any_hex)
    others = concat(characters(hexadecimal - CharSet.of("dD")), any_hex, any_hex, any_hex)
    unicode_escape = concat(literal("u"), union(others, below_surrogates))
    escape = concat(literal("\\"), union(characters(CharSet.of('"\\/bfnrt')), unicode_escape))
    character = union(characters(ANY_CHARACTER - ESCAPED), escape)
    return concat(literal('"'), repeat(character, 0), literal('"'))


FREE_STRING = _free_string()

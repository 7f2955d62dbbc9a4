"""Regular languages over Unicode characters: an algebra of immutable nodes, read by derivatives.

The derivative of a language by a character is what may follow it there (Brzozowski 1964). Nodes of equal structure are
one object, so that derivatives meet again and are remembered (Owens, Reppy and Turon 2009). Counted repeats stay
counted, a union of literals is a trie, and intersection and complement are nodes like any other.
"""

from mlx_agent_llm.languages.regular import derivatives as _derivatives  # noqa: F401  registers them
from mlx_agent_llm.languages.regular.automaton import Automaton
from mlx_agent_llm.languages.regular.boolean import are_disjoint, complement, intersection, union
from mlx_agent_llm.languages.regular.char_set import CharSet
from mlx_agent_llm.languages.regular.concatenation import (
    ANY_CHAR,
    ANY_TEXT,
    characters,
    concat,
    empty_text,
    literal,
    nothing,
    repeat,
)
from mlx_agent_llm.languages.regular.enumeration import finite_texts, least_number_of_texts, some_texts
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
    Union,
)
from mlx_agent_llm.languages.regular.markers import first_match, without

__all__ = [
    "ANY_CHAR",
    "ANY_TEXT",
    "EMPTY_TEXT",
    "NOTHING",
    "Automaton",
    "CharSet",
    "Characters",
    "Complement",
    "Concat",
    "Intersection",
    "Language",
    "Literal",
    "Repeat",
    "Union",
    "are_disjoint",
    "characters",
    "complement",
    "concat",
    "empty_text",
    "finite_texts",
    "first_match",
    "intersection",
    "least_number_of_texts",
    "literal",
    "nothing",
    "repeat",
    "some_texts",
    "union",
    "without",
]

"""Texts up to a marker, and texts without markers."""

from __future__ import annotations

from mlx_agent_llm.languages.regular.boolean import complement, intersection, union
from mlx_agent_llm.languages.regular.concatenation import ANY_CHAR, ANY_TEXT, concat, literal
from mlx_agent_llm.languages.regular.language import Language


def first_match(marker: str) -> Language:
    """The texts that end with the marker and hold it nowhere before."""
    ends = concat(ANY_TEXT, literal(marker))
    return intersection(ends, complement(concat(ends, ANY_CHAR, ANY_TEXT)))


def without(*markers: str) -> Language:
    """The texts that hold none of the markers."""
    return complement(concat(ANY_TEXT, union(*map(literal, markers)), ANY_TEXT))

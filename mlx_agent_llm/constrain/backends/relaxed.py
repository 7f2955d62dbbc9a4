"""A larger language that takes fewer states to read: large counts become open repetitions."""

from __future__ import annotations

from functools import lru_cache

from mlx_agent_llm.languages import regular
from mlx_agent_llm.languages.regular import Language, concat, intersection, repeat, union

MAX_COUNT = 8


@lru_cache(maxsize=1024)  # most grammars have the same strings and numbers
def relaxed(language: Language) -> Language:
    """A language that holds every text of this one; complements stay, which would become smaller."""
    results: dict[Language, Language] = {}
    for node in language.bottom_up(results, _relaxed_parts):
        results[node] = _join(node, [results[part] for part in _relaxed_parts(node)])
    return results[language]


def _relaxed_parts(node: Language) -> tuple[Language, ...]:
    return () if isinstance(node, regular.Complement) else node.children


def _join(node: Language, parts: list[Language]) -> Language:
    if isinstance(node, regular.Repeat) and max(node.least_count, node.most_count or 0) > MAX_COUNT:
        return repeat(parts[0], min(node.least_count, 1), None)
    match node:
        case _ if parts == [*_relaxed_parts(node)]:
            return node
        case regular.Concat():
            return concat(*parts)
        case regular.Union():
            return union(*parts)
        case regular.Intersection():
            return intersection(*parts)
        case regular.Repeat(least_count=least, most_count=most):
            return repeat(parts[0], least, most)
    raise AssertionError(f"a language of kind {type(node).__name__} has no parts that change")

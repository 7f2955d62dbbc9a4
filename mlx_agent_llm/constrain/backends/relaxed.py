"""A larger language that takes fewer states to read: large counts become open repetitions."""

from __future__ import annotations

from mlx_agent_llm.languages import regular
from mlx_agent_llm.languages.regular import Language, concat, intersection, repeat, union

MAX_COUNT = 8


def relaxed(language: Language, results: dict[Language, Language]) -> Language:
    """A language that holds every text of this one; complements stay, which would become smaller.

    results: those of earlier calls, to which this one adds.
    """
    for node in language.bottom_up(results, _relaxed_parts):
        results[node] = _join(node, [results[part] for part in _relaxed_parts(node)])
    return results[language]


def _relaxed_parts(node: Language) -> tuple[Language, ...]:
    return () if isinstance(node, regular.Complement) else node.children


def _join(node: Language, parts: list[Language]) -> Language:
    match node:
        case regular.Concat():
            return concat(*parts)
        case regular.Union():
            return union(*parts)
        case regular.Intersection():
            return intersection(*parts)
        case regular.Repeat(least_count=least, most_count=most):
            if max(least, most or 0) <= MAX_COUNT:
                return repeat(parts[0], least, most)
            return repeat(parts[0], min(least, 1), None)
    return node

"""Outcomes by category: how many replies are valid, and how much is right, with the grammar and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mlx_agent_llm.evaluate.interval import Proportion
from mlx_agent_llm.evaluate.run import Outcome


class Score(NamedTuple):
    """One category in one of the two ways."""

    category: str
    has_grammar: bool
    valid: Proportion
    right: Proportion
    num_errors: int


def scores(outcomes: Sequence[Outcome]) -> Iterator[Score]:
    """In the order of the categories, without the grammar first."""
    for category in dict.fromkeys(outcome.case.category for outcome in outcomes):
        for has_grammar in (False, True):
            ours = [one for one in outcomes if (one.case.category, one.has_grammar) == (category, has_grammar)]
            yield Score(
                category,
                has_grammar,
                Proportion(sum(one.verdict.is_valid for one in ours), len(ours)),
                Proportion(sum(one.verdict.num_right for one in ours), sum(one.verdict.num_asked for one in ours)),
                sum(one.error is not None for one in ours),
            )


def numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What --json carries: the scores with their intervals, and each outcome."""
    return {
        "scores": [
            {
                "category": score.category,
                "grammar": score.has_grammar,
                "errors": score.num_errors,
                **{name: _proportion(getattr(score, name)) for name in ("valid", "right")},
            }
            for score in scores(outcomes)
        ],
        "outcomes": [
            {
                "case": one.case.name,
                "category": one.case.category,
                "grammar": one.has_grammar,
                **one.verdict._asdict(),
                "error": one.error,
            }
            for one in outcomes
        ],
    }


def _proportion(value: Proportion) -> dict[str, Any]:
    return {**value._asdict(), "share": value.share, "interval": value.interval}

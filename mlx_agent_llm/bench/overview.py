"""all: the workloads that are compared with mlx-lm, one after the other, and their headlines in one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mlx_agent_llm.bench.extract import EXTRACT, check_peer
from mlx_agent_llm.bench.mixed import MIXED
from mlx_agent_llm.bench.result import OURS, OUT_OF_MEMORY, PEER, Bars, Headline, Result
from mlx_agent_llm.bench.together import AGENTS, BATCH, SINGLE
from mlx_agent_llm.bench.turns import TURNS
from mlx_agent_llm.bench.workload import Options, Workload, check_taken

NAME = "all"
TAKES = frozenset({"model", "repeats", "quick"})
# What is left of each workload for `quick`; all of them take three to five minutes on two cores.
_QUICK: Mapping[Workload, Mapping[str, int]] = {
    SINGLE: {},
    BATCH: {"rows": 16},
    AGENTS: {"rows": 4},
    TURNS: {},
    MIXED: {"rows": 4, "prompt_tokens": 1024},
    EXTRACT: {"rows": 4},
}


def parts(options: Options) -> Iterator[tuple[Workload, Options]]:
    """The workloads and what each is told; an option that means nothing to all of them is a RequestError."""
    check_taken(NAME, TAKES, options)
    check_peer()  # and not after minutes of the others
    for workload, quick in _QUICK.items():
        smaller = quick if options.quick else {}
        yield workload, replace(options, quick=None, **smaller)  # type: ignore[arg-type]  # numbers of its fields


def overview(results: Mapping[str, Result]) -> Result:
    """The results' headlines as a table and two charts; their numbers stay whole."""
    headlines = {name: result.headline for name, result in results.items() if result.headline is not None}
    return Result(
        title="all: the same work, weights and BLAS",
        columns=("seconds", OURS, PEER, "times as fast"),
        rows=[_row(name, headline) for name, headline in headlines.items()],
        numbers={
            "headlines": {name: headline._asdict() | {"ratio": headline.ratio} for name, headline in headlines.items()},
            "workloads": {name: dict(result.numbers) for name, result in results.items()},
        },
        charts=[_ratio_chart(headlines), _seconds_chart(headlines)],
    )


def _row(name: str, headline: Headline) -> tuple[str, ...]:
    label, ours = f"{name}: {headline.what}", f"{headline.ours:.2f}"
    if headline.mlx_lm is None or headline.ratio is None:
        return label, ours, OUT_OF_MEMORY, ""
    return label, ours, f"{headline.mlx_lm:.2f}", f"{headline.ratio:.2f}x"


def _ratio_chart(headlines: Mapping[str, Headline]) -> Bars:
    ratios = [math.nan if headline.ratio is None else headline.ratio for headline in headlines.values()]
    return Bars("more is better", "times as fast as mlx-lm", list(headlines), {OURS: ratios})


def _seconds_chart(headlines: Mapping[str, Headline]) -> Bars:
    ours = [headline.ours for headline in headlines.values()]
    theirs = [math.nan if headline.mlx_lm is None else headline.mlx_lm for headline in headlines.values()]
    return Bars("less is better (mixed: the worst gap)", "seconds", list(headlines), {OURS: ours, PEER: theirs})

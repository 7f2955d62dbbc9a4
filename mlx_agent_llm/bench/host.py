"""host: the time of a step that no device could take away, on a model so small that hardly anything else is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload
from mlx_agent_llm.core.step_clock import HOST_PHASES, PHASES, Phase
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

NUM_ROWS, NUM_PROMPT, NUM_NEW = 64, 16, 256
KINDS: dict[str, tuple[Phase, ...]] = {
    "host": HOST_PHASES,
    "MLX graph": ("forward", "sample"),
    "device": ("dispatch", "wait"),
}


class Spent(NamedTuple):
    """Microseconds a step."""

    median: float
    p99: float


def _measure(options: Options) -> Result:
    loaded, rows = from_parts(tiny_model(), ByteTokenizer()), options.rows or NUM_ROWS
    tokens = RandomTokens(loaded.vocab_size)
    with Engine(loaded, ours.config_for(rows)) as engine:
        engine.generate([tokens(NUM_PROMPT) for _ in range(rows)], ours.fixed_length(NUM_NEW))
        steps = [record.seconds for record in ours.decode_steps(engine, rows)]
    totals = {name: _spent(steps, phases) for name, phases in (KINDS | {"step": PHASES}).items()}
    return _result(rows, len(steps), {phase: _spent(steps, [phase]) for phase in PHASES}, totals)


def _spent(steps: Sequence[Mapping[Phase, float]], phases: Sequence[Phase]) -> Spent:
    """What these phases took together."""
    middle, high = np.percentile([sum(seconds[phase] for phase in phases) for seconds in steps], [50, 99])
    return Spent(1e6 * float(middle), 1e6 * float(high))


def _result(rows: int, num_steps: int, phases: dict[Phase, Spent], totals: dict[str, Spent]) -> Result:
    kinds = {phase: kind for kind, members in KINDS.items() for phase in members}
    lines: list[tuple[str, str, Spent]] = [(phase, kinds[phase], spent) for phase, spent in phases.items()]
    lines += [(f"all of {name}", "", spent) for name, spent in totals.items()]
    return Result(
        title=f"host: {num_steps} decode steps of {rows} rows, a tiny random model",
        columns=("phase", "kind", "median us", "p99 us"),
        rows=[(name, kind, f"{spent.median:.0f}", f"{spent.p99:.0f}") for name, kind, spent in lines],
        numbers={
            "rows": rows,
            "num_steps": num_steps,
            "unit": "microseconds",
            "phases": {name: spent._asdict() for name, spent in phases.items()},
            "totals": {name: spent._asdict() for name, spent in totals.items()},
        },
        charts=[
            Bars(
                "by phase",
                "microseconds a step",
                [name for name, _, _ in lines],
                {"median": [spent.median for *_, spent in lines], "p99": [spent.p99 for *_, spent in lines]},
            )
        ],
    )


HOST = Workload("host", frozenset({"rows"}), _measure)

"""host: the time of a step that no device could take away, on a model so small that hardly anything else is left.

Once with nothing else in the process, and once beside a thread that computes in Python.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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


Times = dict[str, Spent]


def _measure(options: Options) -> Result:
    loaded, rows = from_parts(tiny_model(), ByteTokenizer()), options.rows or NUM_ROWS
    tokens = RandomTokens(loaded.vocab_size)
    prompts = [tokens(NUM_PROMPT) for _ in range(rows)]
    with Engine(loaded, ours.config_for(rows)) as engine:
        engine.generate(prompts, ours.fixed_length(NUM_NEW))
        alone = [record.seconds for record in ours.decode_steps(engine, rows)]
        num_steps = engine.stats().num_steps
        with _busy_thread():
            engine.generate(prompts, ours.fixed_length(NUM_NEW))
        beside = [record.seconds for record in ours.decode_steps(engine, rows, num_steps)]
    return _result(rows, len(alone), _times(alone), _times(beside))


@contextmanager
def _busy_thread() -> Iterator[None]:
    """A thread that computes in Python all the time."""
    is_over = threading.Event()

    def compute() -> None:
        while not is_over.is_set():
            sum(number * number for number in range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _times(steps: Sequence[Mapping[Phase, float]]) -> Times:
    """What each phase takes, and then what the kinds and the step take."""
    sets: dict[str, Sequence[Phase]] = {phase: [phase] for phase in PHASES}
    sets |= {f"all of {name}": phases for name, phases in (KINDS | {"step": PHASES}).items()}
    return {name: _spent(steps, phases) for name, phases in sets.items()}


def _spent(steps: Sequence[Mapping[Phase, float]], phases: Sequence[Phase]) -> Spent:
    """What these phases took together."""
    middle, high = np.percentile([sum(seconds[phase] for phase in phases) for seconds in steps], [50, 99])
    return Spent(1e6 * float(middle), 1e6 * float(high))


def _result(rows: int, num_steps: int, alone: Times, beside: Times) -> Result:
    kinds: dict[str, str] = {phase: kind for kind, members in KINDS.items() for phase in members}
    return Result(
        title=f"host: {num_steps} decode steps of {rows} rows, a tiny random model",
        columns=("phase", "kind", "median us", "p99 us", "median beside a busy thread"),
        rows=[
            (name, kinds.get(name, ""), *(f"{us:.0f}" for us in (*spent, beside[name].median)))
            for name, spent in alone.items()
        ],
        numbers={
            "rows": rows,
            "num_steps": num_steps,
            "unit": "microseconds",
            "alone": {name: spent._asdict() for name, spent in alone.items()},
            "beside_a_busy_thread": {name: spent._asdict() for name, spent in beside.items()},
        },
        charts=[
            Bars(
                "by phase",
                "microseconds a step",
                list(alone),
                {
                    "median": [spent.median for spent in alone.values()],
                    "p99": [spent.p99 for spent in alone.values()],
                    "median beside a busy thread": [spent.median for spent in beside.values()],
                },
            )
        ],
    )


HOST = Workload("host", frozenset({"rows"}), _measure)

"""mask: what a grammar costs a decode step with none, one and all of the rows constrained, and what one takes alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median

from mlx_agent_llm.bench import ours
from mlx_agent_llm.bench.grammar_cost import GrammarCost, describe, measure_grammars
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.workload import Options, RandomTokens, Workload, check_context
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.request.constraints import Grammar

NUM_ROWS, NUM_PROMPT, NUM_NEW = 16, 24, 64
# A JSON string that ends with a character which no model writes, so that no row ends before its budget does.
STRING = Grammar(r'root ::= "\"" ([^"\\\x00-\x1f\ue000] | "\\" ["\\/bfnrt])* "\ue000"')


@dataclass(frozen=True)
class MaskCost:
    """Median seconds of the decode steps with so many constrained rows; overhead: the step beside one without any."""

    constrained_rows: int
    num_steps: int
    step_seconds: float
    mask_seconds: float  # filling masks on the host
    wait_seconds: float  # the host waiting for the device: as long as it is not zero, the masks are hidden after it
    overhead: float = 1.0


def _measure(options: Options) -> Result:
    loaded, rows = options.load(), options.rows or NUM_ROWS
    check_context(loaded, NUM_PROMPT + NUM_NEW, "mask")
    with Engine(loaded, ours.config_for(rows)) as engine:
        tokens = RandomTokens(loaded.vocab_size)
        _run(engine, tokens, rows, rows)  # compiles the grammar and warms all up
        counts = sorted({0, 1, rows})
        runs = [[_run(engine, tokens, rows, count) for count in counts] for _ in range(options.repeats or 1)]
    grammars = measure_grammars(loaded)
    best = [min(costs, key=lambda cost: cost.step_seconds) for costs in zip(*runs, strict=True)]
    return _result(loaded, rows, [_beside(cost, best[0]) for cost in best], grammars)


def _run(engine: Engine, tokens: RandomTokens, rows: int, num_constrained: int) -> MaskCost:
    """New prompts each time, so that every run computes them; the records of earlier runs are left out."""
    num_earlier = engine.stats().num_steps
    params = [SamplingParams(max_tokens=NUM_NEW, temperature=0.0, constraint=STRING)] * num_constrained
    params += [ours.fixed_length(NUM_NEW)] * (rows - num_constrained)
    outputs = engine.generate([tokens(NUM_PROMPT) for _ in range(rows)], params)
    assert all(output.finish_reason == "length" for output in outputs), "a row ended early"
    steps = [record.seconds for record in ours.decode_steps(engine, rows, num_earlier)]
    return MaskCost(
        num_constrained,
        len(steps),
        step_seconds=median(sum(seconds.values()) - seconds["deliver"] for seconds in steps),
        mask_seconds=median(seconds["masks"] for seconds in steps),
        wait_seconds=median(seconds["wait"] for seconds in steps),
    )


def _beside(cost: MaskCost, free: MaskCost) -> MaskCost:
    return MaskCost(**(asdict(cost) | {"overhead": cost.step_seconds / free.step_seconds}))


def _result(loaded: LoadedModel, rows: int, costs: list[MaskCost], grammars: list[GrammarCost]) -> Result:
    labels = [str(cost.constrained_rows) for cost in costs]
    return Result(
        title=f"mask: decode steps of {rows} rows, a vocabulary of {loaded.vocab_size}",
        columns=("constrained rows", "step ms", "masks ms", "wait ms", "beside none"),
        rows=[
            (
                label,
                *(f"{seconds * 1e3:.2f}" for seconds in (cost.step_seconds, cost.mask_seconds, cost.wait_seconds)),
                f"{cost.overhead:.3f}x",
            )
            for label, cost in zip(labels, costs, strict=True)
        ],
        numbers={
            "rows": rows,
            "vocab_size": loaded.vocab_size,
            "ours": [asdict(cost) for cost in costs],
            "grammars": [asdict(cost) for cost in grammars],
        },
        charts=[
            Bars(
                "by constrained rows",
                "ms",
                labels,
                {name: [1e3 * getattr(cost, f"{name}_seconds") for cost in costs] for name in ("step", "mask", "wait")},
            )
        ],
        notes=[
            "Masks are filled while the forward runs: they cost a step only what exceeds it, and the sampling's mask.",
            *map(describe, grammars),
        ],
    )


MASK = Workload("mask", frozenset({"model", "rows", "repeats"}), _measure)

"""mask: what a grammar costs a decode step with none, one and all rows constrained; ours beside other converters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import NamedTuple

from mlx_agent_llm.bench import grammar_cost, ours
from mlx_agent_llm.bench.grammar_cost import NUM_SCHEMAS, SideCost
from mlx_agent_llm.bench.json_compilers import Side
from mlx_agent_llm.bench.real_schemas import FOLDER
from mlx_agent_llm.bench.result import Bars, Result
from mlx_agent_llm.bench.schema_trial import Outcome
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
    best = [min(costs, key=lambda cost: cost.step_seconds) for costs in zip(*runs, strict=True)]
    grammars = _grammars(loaded, options.schemas or NUM_SCHEMAS)
    return _result(loaded, rows, [_beside(cost, best[0]) for cost in best], grammars)


class _Grammars(NamedTuple):
    """What each side made of the corpora with the model's vocabulary, and of all schemas with every vocabulary."""

    by_corpus: list[SideCost]
    by_vocabulary: list[SideCost]
    missing: list[str]


def _grammars(loaded: LoadedModel, num_schemas: int) -> _Grammars:
    sample = grammar_cost.sample_schemas(num_schemas)
    name = f"{loaded.name} ({loaded.tokenizer.vocab_size:,})"
    given_up: dict[tuple[Side, int], Outcome] = {}
    own = list(grammar_cost.try_schemas(sample.schemas, name, loaded.tokenizer, given_up))
    trials = [*own]
    for family, tokenizer in grammar_cost.real_tokenizers():
        vocabulary = f"{family} ({tokenizer.vocab_size:,})"
        trials += grammar_cost.try_schemas(sample.schemas, vocabulary, tokenizer, given_up)
    return _Grammars(
        grammar_cost.side_costs(own, lambda trial: trial.corpus),
        grammar_cost.side_costs(trials, lambda trial: trial.vocabulary),
        sample.missing,
    )


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


def _result(loaded: LoadedModel, rows: int, costs: list[MaskCost], grammars: _Grammars) -> Result:
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
            "by_corpus": [asdict(cost) for cost in grammars.by_corpus],
            "by_vocabulary": [asdict(cost) for cost in grammars.by_vocabulary],
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
            *(f"{name} was left out: `make corpora` fetches it into {FOLDER}." for name in grammars.missing),
        ],
        more=[grammar_cost.verdict_table(grammars.by_corpus), grammar_cost.time_table(grammars.by_vocabulary)],
    )


MASK = Workload("mask", frozenset({"model", "rows", "repeats", "schemas"}), _measure)

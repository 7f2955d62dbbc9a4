"""The guarantee: whatever a model wants, with any budget that holds a text, in any batch, the result is valid."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from mlx_agent_llm import (
    Choice,
    ConstraintError,
    Engine,
    EngineConfig,
    Grammar,
    JSONSchema,
    Regex,
    RequestOutput,
    SamplingParams,
)
from mlx_agent_llm.errors import UnsupportedSchemaError
from mlx_agent_llm.request.constraints import Constraint
from tests.support.adversary import AdversarialModel, schemas

NUM_SCHEMAS = 300


class Case(NamedTuple):
    """A schema, and the fewest tokens of a text that is valid for it."""

    schema: dict[str, Any]
    minimum: int


def accepted_cases(engine: Engine, count: int) -> list[Case]:
    """The schemas that the preflight lets pass, compiled."""
    cases = []
    for schema in schemas(count):
        try:
            prepared = engine._constraints.prepare(JSONSchema(schema))
        except (UnsupportedSchemaError, ConstraintError):
            continue
        cases.append(Case(schema, prepared.closing.minimum))
    assert len(cases) > 0.8 * count
    return cases


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    model = AdversarialModel()
    config = EngineConfig(kv_cache_tokens=8192, max_num_seqs=32, block_size=8)
    with Engine.from_parts(model, model.tokenizer, config) as engine:
        yield engine


def check(output: RequestOutput, params: SamplingParams) -> None:
    assert isinstance(params.constraint, JSONSchema)
    schema = params.constraint.json_schema
    problem = f"{params.max_tokens=} {params.seed=} {schema=} {output.text=}"
    try:
        value = json.loads(output.text)
    except ValueError as error:
        raise AssertionError(f"{error}: {problem}") from None
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert validator.is_valid(value), problem
    assert len(output.token_ids) <= params.max_tokens and output.finish_reason in ("stop", "length"), problem


def attack(engine: Engine, cases: list[Case], num_cases: int, seed: int) -> list[RequestOutput]:
    """Run so many cases, in batches of 1 to 32, and check every result."""
    rng = random.Random(seed)
    outputs: list[RequestOutput] = []
    while len(outputs) < num_cases:
        batch = [rng.choice(cases) for _ in range(min(rng.randint(1, 32), num_cases - len(outputs)))]
        params = [
            SamplingParams(
                max_tokens=max(case.minimum + rng.choice([0, 0, 1, 2, 3, 5, 8, 20, 60]), 1),
                temperature=rng.choice([0.5, 1.0, 2.0]),
                seed=rng.randrange(2**32),
                constraint=JSONSchema(case.schema),
            )
            for case in batch
        ]
        prompts = [rng.choice("abcd") * rng.randrange(1, 30) for _ in batch]  # the letter chooses the model's taste
        done = engine.generate(prompts, params)
        for output, one in zip(done, params, strict=True):
            check(output, one)
        outputs += done
    return outputs


def test_every_result_is_valid_and_complete(engine: Engine) -> None:
    cases = random.Random(0).sample(accepted_cases(engine, NUM_SCHEMAS), 100)
    outputs = attack(engine, cases, 2000, seed=0)
    assert sum(output.forced_close for output in outputs) > 1000
    assert sum(output.finish_reason == "stop" for output in outputs) > 200
    assert engine.stats().num_forced_tokens > 5000


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_one_of_a_hundred_thousand_results_is_valid_and_complete(engine: Engine, search_seed: int) -> None:
    attack(engine, accepted_cases(engine, NUM_SCHEMAS), 100_000, seed=search_seed)


OTHERS = [
    (Regex(r"[a-z]{3,8}(-\d{2}){1,3}é?"), re.compile(r"[a-z]{3,8}(-\d{2}){1,3}é?", re.ASCII)),
    (Regex(r"(true|false)( and (true|false))*"), re.compile(r"(true|false)( and (true|false))*")),
    (Choice(["yes", "no", "don't know", "€uro"]), re.compile("yes|no|don't know|€uro")),
    (Grammar('root ::= "(" root ")" | item ("," item)*\nitem ::= [0-9]+ "."'), re.compile(r"\(*\d+\.(,\d+\.)*\)*")),
]


@pytest.mark.parametrize(("constraint", "pattern"), OTHERS)
def test_every_other_constraint_is_satisfied_by_every_result(
    engine: Engine, constraint: Constraint, pattern: re.Pattern[str]
) -> None:
    minimum = engine._constraints.prepare(constraint).closing.minimum
    params = [
        SamplingParams(max_tokens=minimum + extra, temperature=1.0, seed=seed, constraint=constraint)
        for seed, extra in enumerate([0, 1, 2, 3, 5, 8, 13, 21] * 4)
    ]
    outputs = engine.generate(["abcd"[seed % 4] for seed in range(len(params))], params)
    for output, one in zip(outputs, params, strict=True):
        assert pattern.fullmatch(output.text) and len(output.token_ids) <= one.max_tokens, output.text
        assert output.text.count("(") == output.text.count(")")
    assert len({output.text for output in outputs}) > 2

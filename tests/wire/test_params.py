"""Sampling parameters and constraints survive the way to a server."""

import json
from dataclasses import fields

import pytest

from mlx_agent_llm import Choice, Grammar, JSONSchema, Regex, RequestError, SamplingParams
from mlx_agent_llm.request import Constraint
from mlx_agent_llm.wire import json_of_params, params_of_json

CONSTRAINTS: list[Constraint] = [
    Regex("[ab]+"),
    Grammar('root ::= "a" | "b"'),
    Choice(["yes", "no"]),
    JSONSchema({"type": "object", "properties": {"b": {}, "a": {}}}, strict=False, separators=(",", ":")),
    JSONSchema({"$ref": "urn:a"}, documents={"urn:a": {"type": "integer"}}),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_constraints_come_back_as_they_were(constraint: Constraint) -> None:
    params = SamplingParams(constraint=constraint)
    assert params_of_json(json.loads(json.dumps(json_of_params(params)))) == params


def test_every_field_comes_back_as_it_was() -> None:
    params = SamplingParams(
        max_tokens=7,
        min_tokens=2,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=-0.2,
        logit_bias={5: -3.5},
        logprobs=0,
        seed=9,
        n=2,
        stop=["x"],
        stop_token_ids=[4],
        ignore_eos=True,
        priority=-1,
        timeout=2.5,
        draft_text="draft",
        cache_salt="salt",
        trace_id="run",
    )
    default = SamplingParams()
    unset = {field.name for field in fields(params) if getattr(params, field.name) == getattr(default, field.name)}
    assert unset == {"constraint"}, "a field that this test does not know"
    assert params_of_json(json.loads(json.dumps(json_of_params(params)))) == params


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"colour": 1}, "colour"),
        ({"constraint": {"poem": "a"}}, "constraint="),
        ({"constraint": None}, "constraint="),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": 3}, "logit_bias"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)
def test_what_is_no_parameter_is_named(value: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        params_of_json(value)

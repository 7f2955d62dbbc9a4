"""An evaluation on models that say what they are told to, and its numbers."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlx_agent_llm import Engine
from mlx_agent_llm.chat import Tool
from mlx_agent_llm.cli.app import app
from mlx_agent_llm.evaluate.case import Case, Reply, Verdict
from mlx_agent_llm.evaluate.interval import Proportion
from mlx_agent_llm.evaluate.letters import letter_cases
from mlx_agent_llm.evaluate.run import Outcome, run_cases
from mlx_agent_llm.evaluate.schemas import schema_cases
from mlx_agent_llm.evaluate.summary import numbers, scores
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel
from tests.support.engines import MakeEngine

TOOL = Tool("double", "", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def judge_call(reply: Reply) -> Verdict:
    is_valid = bool(reply.calls) and not reply.num_broken
    return Verdict(is_valid, int(is_valid and reply.calls[0] == ("double", {"n": 7})), 1)


def judge_value(reply: Reply) -> Verdict:
    return Verdict(reply.value is not None, int(reply.value == {"n": 7}), 1)


def outcomes_of(engine: Engine, *cases: Case) -> list[Outcome]:
    done: list[None] = []
    outcomes = asyncio.run(run_cases(engine, cases, 64, 4, lambda: done.append(None)))
    assert len(done) == len(outcomes) == 2 * len(cases)
    return outcomes


ASKED = [{"role": "user", "content": "Double 7."}]


def test_a_right_call_and_right_json_are_right_in_both_ways(make_engine: MakeEngine) -> None:
    call = '<tool_call>{"name": "double", "arguments": {"n": 7}}</tool_call>'
    engine = make_engine(ScriptedModel([call]), kv_cache_tokens=16384)
    case = Case("calls", "a", ASKED, judge_call, [TOOL])
    assert [one.verdict for one in outcomes_of(engine, case)] == [(True, 1, 1)] * 2
    for text in ('{"n":7}', '```json\n{"n": 7}\n```'):
        engine = make_engine(ScriptedModel([text]), kv_cache_tokens=16384)
        free, bound = outcomes_of(engine, Case("json", "b", ASKED, judge_value, schema=SCHEMA))
        assert free.verdict == (True, 1, 1) and bound.verdict.is_valid


def test_a_model_that_says_anything_is_valid_with_the_grammar_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel(), kv_cache_tokens=16384)
    cases = [Case("calls", "a", ASKED, judge_call, [TOOL]), Case("json", "b", ASKED, judge_value, schema=SCHEMA)]
    outcomes = outcomes_of(engine, *cases)
    assert [(one.has_grammar, one.verdict.is_valid) for one in outcomes] == [(False, False), (True, True)] * 2


def test_a_case_that_cannot_be_run_is_not_valid_and_says_why(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    case = Case("json", "long", [{"role": "user", "content": "x" * 20000}], judge_value, schema=SCHEMA)
    for outcome in outcomes_of(engine, case):
        assert not outcome.verdict.is_valid and str(outcome.error).startswith("ContextLengthError")


def test_scores_are_by_category_and_way_with_intervals() -> None:
    case = Case("c", "x", ASKED, judge_value)
    outcomes = [Outcome(case, has, Verdict(has, int(has), 2), None if has else "broken") for has in (False, True)] * 3
    free, bound = scores(outcomes)
    assert (free.valid, free.right, free.num_errors) == ((0, 3), (0, 6), 3)
    assert (bound.valid, bound.right, bound.num_errors) == ((3, 3), (3, 6), 0)
    written: dict[str, Any] = json.loads(json.dumps(numbers(outcomes)))
    assert written["scores"][1]["right"]["share"] == 0.5
    assert written["outcomes"][0] == {
        "case": "x", "category": "c", "grammar": False, "is_valid": False, "num_right": 0, "num_asked": 2,
        "error": "broken",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763)]
)
def test_wilson_s_interval(hits: int, total: int, low: float, high: float) -> None:
    assert Proportion(hits, total).interval == pytest.approx((low, high), abs=5e-4)


def test_nothing_asked_says_nothing() -> None:
    assert math.isnan(Proportion(0, 0).share) and Proportion(0, 0).interval == (0.0, 1.0)


def test_letters_and_schemas_accept_what_is_right_and_nothing_else() -> None:
    letter = letter_cases()[0]
    truth: dict[str, Any] = letter.judge.args[0]  # type: ignore[attr-defined]
    assert all(str(value) in letter.messages[0]["content"] for name, value in truth.items() if name != "is_paid")
    assert letter.judge(Reply(value=truth)) == (True, 9, 9)
    assert letter.judge(Reply(value={**truth, "quantity": 0})) == (True, 8, 9)
    assert letter.judge(Reply()) == (False, 0, 9)
    schema = schema_cases()[0]
    assert schema.judge(Reply(value={})).is_valid and not schema.judge(Reply()).is_valid


def test_the_command_prints_a_table_and_writes_json(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = make_engine(RandomLogitsModel(), kv_cache_tokens=16384)
    monkeypatch.setattr(Engine, "load", lambda name: engine)
    file = tmp_path / "eval.json"
    arguments = ["eval", "a-model", "--suite", "letters", "--cases", "2", "--max-tokens", "200", "--json", str(file)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "letters, by field" in done.output and "100% (34-100)" in done.output
    free, bound = json.loads(file.read_text())["scores"]
    assert (free["grammar"], free["valid"]["hits"]) == (False, 0)
    assert (bound["grammar"], bound["valid"]["hits"], bound["valid"]["total"]) == (True, 2, 2)


def test_what_the_command_cannot_do_is_said_at_once(tmp_path: Path) -> None:
    unknown = CliRunner().invoke(app, ["eval", "--suite", "nothing"])
    assert unknown.exit_code == 2 and "must be one of bfcl, schemas, letters" in " ".join(unknown.output.split())
    missing = CliRunner().invoke(app, ["eval", "--bfcl", str(tmp_path / "no")])
    assert missing.exit_code == 2 and "does not exist" in " ".join(missing.output.replace("│", " ").split())

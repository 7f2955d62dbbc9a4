"""The leaderboard's cases: all of them are read, enforced, and accept their own answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm.chat.tools import check_parameters
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.evaluate import bfcl
from mlx_agent_llm.evaluate.case import Call, Case, Reply
from tests.support.corpora import corpus

NUM_CASES = {
    "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "live_simple": 258,
    "live_multiple": 1053, "live_parallel": 16, "live_parallel_multiple": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Path:
    return corpus("bfcl-eval") / "bfcl_eval" / "data"


def answer_of(case: Case) -> Reply:
    """The first of the answers that the case accepts."""
    (answers,) = case.judge.args  # type: ignore[attr-defined]
    return Reply([Call(name, concrete(arguments)) for name, arguments in answers])


def concrete(value: Any) -> Any:
    if isinstance(value, Mapping):
        chosen = {name: first(values) for name, values in value.items()}
        return {name: concrete(one) for name, one in chosen.items() if one is not None}
    return [concrete(one) for one in value] if isinstance(value, list) else value


def first(values: Any) -> Any:
    return next((one for one in values if one != ""), None) if isinstance(values, list) else values


@pytest.mark.parametrize(
    "category",
    [one if one == "simple_python" else pytest.param(one, marks=pytest.mark.long) for one in bfcl.CATEGORIES],
)
def test_every_schema_is_enforced_and_every_case_accepts_its_own_answer(category: str, folder: Path) -> None:
    cases = bfcl.read_cases(folder, category)
    assert len(cases) == NUM_CASES[category]
    wrong = 0
    for case in cases:
        check_parameters(case.tools, constraint_grammar)
        assert {call.name for call in answer_of(case).calls} <= {tool.name for tool in case.tools}
        wrong += not case.judge(answer_of(case)).num_right
    assert wrong <= 2, "a null among the answers is taken for one that may be left out here"


def test_a_case_is_right_valid_or_neither(folder: Path) -> None:
    case = bfcl.read_cases(folder, "simple_python")[0]
    right = answer_of(case)
    assert case.judge(right) == (True, 1, 1)
    assert case.judge(Reply([Call(right.calls[0].name, {"base": 1, "height": 2})])) == (True, 0, 1)
    assert case.judge(right._replace(num_broken=1)) == (False, 0, 1)
    assert case.judge(Reply()) == (False, 0, 1)


def test_types_of_python_become_json_s_and_an_array_s_enum_is_its_items() -> None:
    described = {
        "type": "dict",
        "properties": {
            "a": {"type": "float", "optional": True, "default": 1},
            "b": {"type": "tuple", "items": {"type": "dict", "properties": {"c": {"type": "any"}}}},
            "d": {"type": "array", "items": {"type": "string"}, "enum": ["x", "y"]},
        },
    }
    assert bfcl._schema(described) == {
        "type": "object",
        "properties": {
            "a": {"type": "number"},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {}}}},
            "d": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}},
        },
    }


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MLXAgentError, match="pip install --no-deps bfcl-eval"):
        bfcl.find_data()


def test_a_folder_without_the_cases_is_told(tmp_path: Path) -> None:
    with pytest.raises(MLXAgentError, match=r"holds no BFCL_v\*_multiple.json"):
        bfcl.read_cases(tmp_path, "multiple")

"""Calls against what a case accepts."""

from typing import Any

import pytest

from mlx_agent_llm.evaluate.answers import are_accepted
from mlx_agent_llm.evaluate.case import Call

ANSWERS: list[Any] = [("area", {"base": [10], "unit": ["units", ""]}), ("area", {"base": [3.5]})]


def calls(*arguments: dict[str, Any], name: str = "area") -> list[Call]:
    return [Call(name, one) for one in arguments]


def test_calls_are_accepted_in_any_order_and_each_answer_once() -> None:
    assert are_accepted(calls({"base": 10, "unit": "Units"}, {"base": 3.5}), ANSWERS)
    assert are_accepted(calls({"base": 3.5}, {"base": 10}), ANSWERS)
    assert not are_accepted(calls({"base": 10}, {"base": 10}), ANSWERS)
    assert not are_accepted(calls({"base": 10}), ANSWERS)
    assert not are_accepted(calls({"base": 10}, {"base": 3.5}, {"base": 3.5}), ANSWERS)
    assert not are_accepted(calls({"base": 10}, {"base": 3.5}, name="volume"), ANSWERS)


@pytest.mark.parametrize(
    ("value", "accepted", "expected"),
    [
        (10.0, [10], True),
        (True, [1], False),
        (1, [True], False),
        ("April 1,2024", ["april 1, 2024"], True),
        ("April 2", ["April 1"], False),
        ("10", [10], False),
        ([1, "A-b"], [[1, "a b"]], True),
        ([1], [[1, 2]], False),
        ({"a": 1}, [{"a": [1, 2], "b": ["", 5]}], True),
        ({"a": 1, "c": 1}, [{"a": [1]}], False),
        ({}, [{"a": [1]}], False),
        ([{"a": 2}], [[{"a": [1, 2]}]], True),
        ({"at": {"x": 1.5}}, [{"at": [{"x": 1.5}]}], True),
        ({"at": {"x": 2}}, [{"at": [{"x": 1.5}]}], False),
    ],
)
def test_a_value_is_one_of_those_that_are_right(value: Any, accepted: list[Any], expected: bool) -> None:
    assert are_accepted([Call("f", {"x": value})], [("f", {"x": accepted})]) is expected


def test_an_argument_may_be_left_out_only_where_the_case_says_so() -> None:
    assert are_accepted([Call("f", {})], [("f", {"x": ["", 1]})])
    assert not are_accepted([Call("f", {})], [("f", {"x": [1]})])
    assert not are_accepted([Call("f", {"x": 1, "y": 2})], [("f", {"x": [1]})])

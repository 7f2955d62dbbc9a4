"""Schemas of 10 MB and texts without end are refused before much is computed, and large ones are read at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mlx_agent_llm.constrain.grammars import read_constraint
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.request.constraints import JSONSchema

LARGE: dict[str, Any] = {
    "descriptions": {"properties": {f"p{index}": {"description": "x" * 1000} for index in range(10_000)}},
    "one text": {"const": "x" * 10**7},
    "constants": {"enum": [f"value {index}" for index in range(700_000)]},
}


def seconds_of(schema: dict[str, Any]) -> float:
    begin = time.process_time()
    read_constraint(JSONSchema(schema))
    return time.process_time() - begin


def test_nine_thousand_unknown_keywords_are_annotations_within_a_second() -> None:
    assert seconds_of({"type": "string", **{f"unknown{index}": 1 for index in range(9000)}}) < 1


@pytest.mark.long
def test_as_many_constants_as_there_may_be_are_read_within_ten_seconds_of_a_loaded_machine() -> None:
    assert seconds_of({"enum": [f"value {index}" for index in range(230_000)]}) < 10


@pytest.mark.parametrize("name", LARGE)
def test_ten_megabytes_are_refused_within_a_second_with_their_length(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(ConstraintError, match=r"schema has 1\d{7} characters, more than 4000000"):
        read_constraint(JSONSchema(LARGE[name]))
    assert time.process_time() - begin < 1

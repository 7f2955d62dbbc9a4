"""What is wrong with a value by its schema, by the rules that the grammars keep to."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mlx_agent_llm.constrain.schema.values.formats import FORMATS, language_of_format
from mlx_agent_llm.constrain.violation import violation, violations
from mlx_agent_llm.languages.regular import complement
from tests.support.grammar_walks import random_text

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def test_the_first_violation_has_its_place_and_its_reason() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}, "required": ["a", "b"]}
    assert violation(schema, {"a": [1], "b": 0}) is None
    found = violation(schema, {"a": [1, "x"], "b": 0})
    assert found is not None and str(found) == "$.a[1]: 'x' is not of type 'integer'"
    assert found == (("a", 1), "$.a[1]", "'x' is not of type 'integer'")
    assert {one.path for one in violations(schema, {"a": ["x"]})} == {("a", 0), ()}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"prefixItems": [{"type": "integer"}], "items": False}, [1, 2]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ({"$schema": DRAFT_7, "items": [{"type": "integer"}], "additionalItems": False}, [1, 2]),
        ({"$schema": DRAFT_7, "dependencies": {"a": ["b"]}}, {"a": 1}),
    ],
)
def test_a_schema_is_read_by_its_own_draft(schema: dict[str, Any], value: Any) -> None:
    assert violation(schema, value) is not None


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_is_what_the_grammar_writes_and_nothing_else(name: str) -> None:
    rng, language = random.Random(name), language_of_format(name)
    positive, negative = {"type": "string", "format": name}, {"type": "string", "not": {"format": name}}
    for _ in range(20):
        text = random_text(language, rng)
        assert violation(positive, text) is None and violation(negative, text) is not None
    if not complement(language).is_empty():
        for _ in range(20):
            text = random_text(complement(language), rng)
            assert violation(negative, text) is None and violation(positive, text) is not None, text


def test_formats_that_no_grammar_writes_are_checked_where_that_is_the_same_everywhere() -> None:
    assert violation({"format": "regex"}, "(") is not None and violation({"format": "regex"}, "a*") is None
    assert violation({"format": "sonnet"}, "x") is None and violation({"format": "date"}, 3) is None


def test_a_value_that_is_nested_too_deeply_is_not_valid() -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    found = violation({"type": "array", "items": {"$ref": "#"}}, value)
    assert found is not None and "nested too deeply" in found.message

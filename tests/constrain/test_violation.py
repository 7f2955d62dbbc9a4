"""What is wrong with a value by its schema, by the rules that the grammars keep to."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mlx_agent_llm.bench.grammar_walks import random_text
from mlx_agent_llm.constrain.schema.values.formats import STRING_FORMATS, language_of_format, widest_language_of_format
from mlx_agent_llm.constrain.violation import violation, violations
from mlx_agent_llm.languages.regular import complement, intersection

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


@pytest.mark.parametrize("name", sorted(STRING_FORMATS))
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


def test_formats_that_no_grammar_writes_are_annotations() -> None:
    assert violation({"format": "regex"}, "(") is None and violation({"format": "sonnet"}, "x") is None
    assert violation({"format": "date"}, 3) is None


def test_formats_of_numbers_are_ranges() -> None:
    assert violation({"format": "int8"}, 127) is None and violation({"format": "int8"}, 128) is not None
    assert violation({"format": "int8"}, 1.5) is not None and violation({"format": "int8"}, "x") is None


@pytest.mark.parametrize("name", sorted(STRING_FORMATS))
def test_what_is_written_of_a_format_lies_within_what_any_reader_takes(name: str) -> None:
    assert intersection(language_of_format(name), complement(widest_language_of_format(name))).is_empty()


@pytest.mark.parametrize(
    ("pattern", "valid", "invalid"),
    [
        ("a$", "a", "a\n"),
        (r"^\p{L}+$", "é", "1"),
        (r"^(?<year>[0-9]{4})$", "2024", "24"),
        (r"^\u{1F600}$", "\U0001f600", "u"),
        (r"^[\w-.]+$", "a-.b", "a b"),
        (r"^\cA$", "\x01", "cA"),
        (r"^\d$", "1", "\u0661"),
        (r"^\s$", "\ufeff", "\x1c"),
        (r"^(?!foo).*$", "bar", "foo"),
        (r"^(a|b)\1$", "aa", "ab"),
    ],
)
def test_patterns_are_those_of_ecma_262(pattern: str, valid: str, invalid: str) -> None:
    for schema, wrap in (
        ({"pattern": pattern}, lambda text: text),
        ({"patternProperties": {pattern: True}, "additionalProperties": False}, lambda text: {text: 1}),
    ):
        assert violation(schema, wrap(valid)) is None and violation(schema, wrap(invalid)) is not None


def test_names_and_constants_that_look_like_patterns_stay_what_they_are() -> None:
    schema = {"properties": {"pattern": {"const": {"pattern": r"\d"}}, "patternProperties": {"type": "string"}}}
    assert violation(schema, {"pattern": {"pattern": r"\d"}, "patternProperties": "x"}) is None


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"maximum": 3, "exclusiveMaximum": True}, 2, 3),
        ({"minimum": 3, "exclusiveMinimum": 4}, 5, 4),
        ({"type": "string", "nullable": True}, None, 1),
        ({"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", "b"]),
        ({"dependencies": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}, 2, 1),
    ],
)
def test_older_forms_are_read_where_no_dialect_is_named(schema: dict[str, Any], valid: Any, invalid: Any) -> None:
    assert violation(schema, valid) is None and violation(schema, invalid) is not None


def test_references_lead_into_given_documents() -> None:
    schema, documents = {"$ref": "a.json#/here"}, {"a.json": {"here": {"type": "null"}}}
    assert violation(schema, None, documents) is None and violation(schema, 1, documents) is not None


def test_a_value_that_is_nested_too_deeply_is_not_valid() -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    found = violation({"type": "array", "items": {"$ref": "#"}}, value)
    assert found is not None and "nested too deeply" in found.message

"""What a schema may say: everything else is refused by name, before anything is compiled."""

from __future__ import annotations

import enum
import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from mlx_agent_llm.constrain.preflight import check_schema
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError

STRING = {"type": "string"}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    """A tree."""

    label: str = Field(min_length=1, description="what it is called")
    colour: Colour = Colour.RED
    weight: float | None = Field(default=None, ge=0, lt=10)
    size: Literal["s", "m", 3] = "s"
    span: tuple[int, int] = (0, 1)
    tags: dict[str, list[int]] = {}
    children: list[Node] = []


@pytest.mark.parametrize(
    "schema",
    [
        Node.model_json_schema(),
        {},
        {"description": "anything", "title": "t", "default": 1, "examples": [1], "$comment": "c", "deprecated": True},
        {"$id": "https://example.com/root", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "null"},
        {"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": 10},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"$id": STRING, "pattern": STRING}, "required": ["pattern"]},
        {"type": "array", "prefixItems": [STRING, {}], "items": False, "minItems": 2},
        {"enum": [1, "a", None, {"b": [True]}]},
        {"type": "string", "enum": ["a", 1]},
        {"const": None, "type": "null", "title": "nothing"},
        {"allOf": [{"$ref": "#/definitions/x"}], "description": "d", "definitions": {"x": STRING}},
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": STRING}},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]},
        {"$defs": {"unused": {"pattern": "x"}}, "type": "null"},
    ],
)
def test_what_the_grammar_enforces_is_allowed(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword"),
    [
        ({"type": "string", "pattern": "a"}, "", "pattern"),
        ({"type": "string", "format": "email"}, "", "format"),
        ({"type": "string", "maxLength": 65}, "", "maxLength"),
        ({"type": "integer", "multipleOf": 2}, "", "multipleOf"),
        ({"type": "array", "items": STRING, "uniqueItems": True}, "", "uniqueItems"),
        ({"type": "array", "contains": STRING}, "", "contains"),
        ({"type": "array", "maxItems": 10_001}, "", "maxItems"),
        ({"type": "object", "patternProperties": {"a": STRING}}, "", "patternProperties"),
        ({"type": "object", "minProperties": 1}, "", "minProperties"),
        ({"type": "object", "required": ["a"]}, "", "required"),
        ({"type": "object", "properties": {"a": STRING}, "required": ["b"]}, "", "required"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, "", "additionalProperties"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": STRING}, "", "additionalProperties"),
        ({"type": "object", "properties": {"a/b": {"not": {}}}}, "/properties/a~1b", "not"),
        ({"type": "array", "prefixItems": [{}, {"if": {}}]}, "/prefixItems/1", "if"),
        ({"type": "array", "items": {"oneOf": [STRING]}}, "/items", "oneOf"),
        ({"type": "object", "additionalProperties": {"x": 1}}, "/additionalProperties", "x"),
        ({"anyOf": [STRING, {"type": "number", "unknown": 1}]}, "/anyOf/1", "unknown"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "pattern": "x"}}}, "/$defs/a", "pattern"),
        ({"$ref": "#/$defs/a", "type": "string", "$defs": {"a": STRING}}, "", "type"),
        ({"anyOf": [STRING], "type": "string"}, "", "type"),
        ({"allOf": [STRING, {}]}, "", "allOf"),
        ({"allOf": [STRING], "minLength": 1}, "", "minLength"),
        ({"enum": ["a"], "const": "a"}, "", "enum"),
        ({"enum": ["a"], "minLength": 1}, "", "minLength"),
        ({"minimum": 1}, "", "minimum"),
        ({"properties": {}}, "", "properties"),
        ({"type": "string", "minimum": 1}, "", "minimum"),
        ({"type": "number", "minimum": 1e-16}, "", "minimum"),
        ({"type": "number", "exclusiveMaximum": 10**16}, "", "exclusiveMaximum"),
        ({"type": "array", "items": {"$id": "x", "type": "null"}}, "/items", "$id"),
        ({"type": "null", "$anchor": "x"}, "", "$anchor"),
    ],
)
def test_every_other_keyword_is_refused_with_its_place(schema: dict[str, Any], pointer: str, keyword: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        check_schema(schema)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert caught.value.reason


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, "/type is not valid JSON Schema"),
        ({"type": "object", "properties": {"a": {"type": 3}}}, "/properties/a/type is not valid"),
        ({"type": "object", "properties": []}, "/properties is not valid"),
        ({"anyOf": []}, "/anyOf is not valid"),
        ({"type": "string", "minLength": -1}, "/minLength is not valid"),
        ({"$ref": "#/$defs/a/x", "$defs": {"a": {"x": {"type": "text"}}}}, "/a/x/type is not valid"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum=3, maximum=2"),
        ({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3}, "no integer"),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "no integer"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "no number"),
        ({"type": "number", "minimum": math.nan}, "is not JSON"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems=3 is above maxItems=2"),
        ({"type": "array", "minItems": 3, "prefixItems": [{}], "items": False}, "minItems=3"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength=3 is above maxLength=2"),
        ({"enum": []}, "no value of enum"),
        ({"type": "integer", "const": "a"}, "no value of const"),
        ({"type": "object", "properties": {"a": False}}, "/properties/a: false allows no value"),
        ({"anyOf": [STRING, False]}, "/anyOf/1: false"),
        ({"$ref": "#/$defs/a"}, "cannot be resolved"),
        ({"$ref": "https://example.com/x.json"}, "within the schema"),
        ({"$ref": "#name"}, "within the schema"),
        ({"$ref": "#/title", "title": "t"}, "must name a schema"),
        ({"$ref": "#/$defs/a/items", "$defs": {"a": {"$id": "x", "items": STRING}}}, "own \\$id"),
        ({"$ref": "#"}, "back to itself"),
        ({"anyOf": [STRING, {"$ref": "#"}]}, "back to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "back to itself"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "requires itself"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "requires itself"),
        ({"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1}, "requires itself"),
    ],
)
def test_schemas_that_make_no_sense_are_constraint_errors(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        check_schema(schema)


def test_a_schema_nested_beyond_reason_is_refused_and_not_a_crash() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(100_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConstraintError):
        check_schema(schema)

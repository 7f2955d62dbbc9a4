"""Schemas that no grammar is made of: what cannot be enforced, what is no schema, what nothing satisfies."""

from __future__ import annotations

import enum
import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from referencing import Registry

from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.errors import ConstraintError, RequestError, UnsupportedSchemaError

STRING = {"type": "string"}
DRAFT_2020_12 = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


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
        True,
        {"description": "anything", "title": "t", "default": 1, "examples": [1], "$comment": "c", "deprecated": True},
        {"$id": "https://example.com/root", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "null"},
        {"type": "string", "x-order": 3, "contentMediaType": "text/html", "readOnly": True},
        {"type": "object", "properties": {"$id": STRING, "pattern": STRING}, "required": ["pattern"]},
        {"$defs": {"unused": {"type": "mystery"}}, "type": "null"},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]},
        {"then": {"mystery": 1}, "minContains": 3, "type": "null"},
        {
            "allOf": [
                {"not": {"patternProperties": {"^a": {"type": "integer"}}}},
                {"not": {"patternProperties": {"b$": STRING}}},
            ]
        },
    ],
)
def test_what_the_grammar_enforces_is_allowed(schema: dict[str, Any]) -> None:
    schema_grammar(schema)


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword", "reason"),
    [
        ({"type": "object", "properties": {"a/b": {"minimun": 1}}}, "/properties/a~1b", "minimun", "mean 'minimum'"),
        ({"maxLenght": 3}, "", "maxLenght", "did you mean 'maxLength'"),
        ({"requred": ["a"]}, "", "requred", "did you mean 'required'"),
        ({"additionalproperty": False}, "", "additionalproperty", "did you mean 'additionalProperties'"),
        ({"min_length": 3}, "", "min_length", "did you mean 'minLength'"),
        ({"Type": "string"}, "", "Type", "did you mean 'type'"),
        ({"enums": [1]}, "", "enums", "did you mean 'enum'"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "disallow": "null"}, "", "disallow", "draft 3"),
        ({"items": {"const": ["x" * 10_001]}}, "/items", "const", "10001 characters"),
        ({"pattern": "x" * 3_900_000}, "", "pattern", "longer than 10000"),
        ({"properties": {"x" * 10_001: {}}}, "", "properties", "10001 characters"),
        ({"prefixItems": [{}, {"pattern": "(?=a)"}]}, "/prefixItems/1", "pattern", "look"),
        ({"patternProperties": {"\\bx": {}}}, "", "patternProperties", "position"),
        ({"type": "array", "items": {"type": "object"}, "uniqueItems": True}, "", "uniqueItems", "one text each"),
        ({"not": {"items": STRING, "uniqueItems": True}, "type": "array"}, "/not", "uniqueItems", "few values"),
        ({"type": "array", "maxItems": 10_001}, "", "maxItems", "10000"),
        ({"type": "object", "minProperties": 2}, "", "minProperties", "twice"),
        ({"type": "number", "multipleOf": 0.01}, "", "multipleOf", "doubles"),
        ({"type": "number", "minimum": 1e-16}, "", "minimum", "double"),
        ({"type": "number", "exclusiveMaximum": 10**16}, "", "exclusiveMaximum", "double"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"minimun": 1}}}, "/$defs/a", "minimun", "no keyword"),
        (
            {"$ref": "#x", "$defs": {"a": {"$dynamicAnchor": "x"}, "b": {"$id": "b", "$dynamicAnchor": "x"}}},
            "",
            "$ref",
            "references before it",
        ),
        (
            {"allOf": [{"properties": {"a": {"anyOf": [{"required": [f"{k}{n}"]} for n in range(60)]}}} for k in "xy"]},
            "/allOf/0/properties/a",
            "allOf",
            "too many cases",
        ),
        (
            {"allOf": [{"anyOf": [{"required": [f"a{index}"]}, {"required": [f"b{index}"]}]} for index in range(40)]},
            "",
            "allOf",
            "too many cases",
        ),
        (
            {"anyOf": [{"properties": {f"p{i}": {}}} for i in range(30)], "unevaluatedProperties": False},
            "",
            "unevaluatedProperties",
            "too many ways",
        ),
        (
            {"uniqueItems": True, "items": {"enum": list(range(30))}, "contains": {"const": 1}},
            "",
            "uniqueItems",
            "too many cases",
        ),
        (
            {"patternProperties": {f"{c}.*{c}": {"minLength": ord(c)} for c in "abcdefgh"}},
            "",
            "patternProperties",
            "many",
        ),
        ({"enum": list(range(5000))}, "", "enum", "too many cases"),
        ({"allOf": [{"contains": {"const": n}} for n in range(9)]}, "/allOf/0", "contains", "more than 6"),
        (
            {"allOf": [{"not": {"patternProperties": {f"^{n}": STRING}}} for n in range(9)]},
            "/allOf/0/not",
            "not",
            "more than 6",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place_and_reason(
    schema: dict[str, Any], pointer: str, keyword: str, reason: str
) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        schema_grammar(schema)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert reason in caught.value.reason
    assert (pointer, keyword) in schema_grammar(schema, strict=False).checked


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, "/type is not valid JSON Schema: 'text' must be one or several of null, boolean"),
        ({"type": "object", "properties": {"a": {"type": 3}}}, "/properties/a/type is not valid"),
        ({"type": "object", "properties": []}, "/properties is not valid"),
        ({"type": "object", "properties": {"a": 3}}, "/properties is not valid"),
        ({"anyOf": []}, "/anyOf is not valid"),
        ({**DRAFT_2020_12, "items": [STRING]}, "older drafts, which \\$schema must say"),
        ({"minLength": -1}, "/minLength is not valid"),
        ({"maximum": True}, "/maximum is not valid"),
        ({**DRAFT_2020_12, "exclusiveMaximum": True}, "/exclusiveMaximum is not valid"),
        ({"$ref": "b.json"}, "cannot be resolved within the schema and `documents`"),
        ({"multipleOf": 0}, "/multipleOf is not valid"),
        ({"required": ["a", "a"]}, "/required is not valid"),
        ({"unevaluatedItems": False, "allOf": [{"prefixItems": 3}]}, "/allOf/0/prefixItems is not valid"),
        ({"$ref": "#/$defs/a/x", "$defs": {"a": {"x": {"type": "text"}}}}, "/a/x/type is not valid"),
        (False, "schema: no value"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "schema: no value"),
        ({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3}, "schema: no value"),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "schema: no value"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "schema: no value"),
        ({"type": "number", "minimum": math.nan}, "is not JSON"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "schema: no value"),
        ({"type": "array", "minItems": 3, "prefixItems": [{}], "items": False}, "schema: no value"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "schema: no value"),
        ({"type": "string", "pattern": "^a", "not": {"pattern": "a"}}, "schema: no value"),
        ({"enum": []}, "schema: no value"),
        ({"type": "integer", "const": "a"}, "schema: no value"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "schema: no value"),
        ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "/properties/a: no value"),
        ({"$ref": "#/$defs/a"}, "cannot be resolved"),
        ({"$ref": "https://example.com/x.json"}, "cannot be resolved within"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "cannot be resolved within"),
        ({"$ref": "http://[bad"}, "cannot be resolved"),
        ({"$ref": "#name"}, "cannot be resolved"),
        ({"$ref": "#/title", "title": "t"}, "must name a schema"),
        ({"$ref": "#"}, "back here without a value"),
        ({"anyOf": [STRING, {"$ref": "#"}]}, "back here without a value"),
        ({"not": {"$ref": "#"}}, "back here without a value"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "defs/a: a \\$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "requires itself"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "requires itself"),
        ({"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1}, "requires itself"),
    ],
)
def test_schemas_that_make_no_sense_are_constraint_errors(schema: Any, message: str) -> None:
    for strict in (True, False):
        with pytest.raises(ConstraintError, match=message):
            schema_grammar(schema, strict)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def nested_conditions(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for level in range(levels):
        schema = {"not": {"allOf": [schema, {"minimum": level}]}}
    return schema


def meeting_circles() -> dict[str, Any]:
    """References in circles of prime lengths: their intersection is a circle of the product of all."""
    circles = {
        f"c{prime}_{place}": {"properties": {"x": {"$ref": f"#/$defs/c{prime}_{(place + 1) % prime}"}}}
        for prime in (2, 3, 5, 7, 11, 13)
        for place in range(prime)
    }
    return {"$defs": circles, "allOf": [{"$ref": f"#/$defs/c{prime}_0"} for prime in (2, 3, 5, 7, 11, 13)]}


@pytest.mark.parametrize(
    "schema",
    [
        nested(100_000),
        nested_conditions(500),
        meeting_circles(),
        {"type": "object", "properties": {f"p{index}": {"description": "x" * 80} for index in range(10_000)}},
        {"type": "object", "properties": {f"p{index}": STRING for index in range(12_000)}},
        {"oneOf": [{"required": [f"a{index}"]} for index in range(300)]},
        {"not": {"enum": [{"a": index, "b": [index]} for index in range(100)]}},
        {"type": "string", "pattern": "(a|b)*a(a|b){18}", "not": {"pattern": "b(a|b){15}a"}, "minLength": 100},
        {"contains": {"type": "integer"}, "minContains": 50, "maxContains": 60, "maxItems": 100},
    ],
    ids=["nesting", "conditions", "circles", "characters", "subschemas", "oneOf", "complement", "pattern", "contains"],
)
def test_hostile_schemas_are_refused_after_bounded_work(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        schema_grammar(schema)


def test_large_schemas_of_the_usual_kind_are_no_problem() -> None:
    branches = [{"properties": {"kind": {"const": f"k{n}"}, "v": STRING}, "required": ["kind"]} for n in range(150)]
    schema_grammar({"type": "object", "oneOf": branches})
    schema_grammar({"enum": [f"value {index}" for index in range(5000)]})
    schema_grammar(
        {"type": "object", "properties": {f"p{index}": {"type": ["string", "null"]} for index in range(500)}}
    )


@pytest.mark.parametrize(
    ("schema", "documents", "problem"),
    [
        ({"$id": 5}, {}, r"schema is not valid JSON Schema: its \$id must be a string"),
        ({"properties": {"a": {"$id": 5, "type": "string"}}}, {}, r"schema/properties/a is not valid JSON Schema"),
        ({"$ref": "d"}, {"d": {"$id": 5}}, r"documents\['d'\] is not valid JSON Schema"),
        ({"$ref": "d"}, {"d": {"$defs": [1]}}, r"documents\['d'\] is not valid JSON Schema"),
        ({"$ref": "#a", "$defs": [1]}, {}, r"\$ref='#a' cannot be resolved"),
    ],
)
def test_what_has_not_the_form_of_a_schema_is_an_error_that_names_it(
    schema: dict[str, Any], documents: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConstraintError, match=problem):
        schema_grammar(schema, documents=documents)


def test_a_document_is_searched_for_names_once_however_many_references_lead_into_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[Registry[Any]] = []
    crawl = Registry.crawl
    monkeypatch.setattr(Registry, "crawl", lambda registry: (searched.append(registry), crawl(registry))[1])
    names = [f"n{i}" for i in range(20)]
    library = {"$defs": {name: {"$id": f"https://example.com/{name}", "type": "integer"} for name in names}}
    properties = {name: {"$ref": f"https://example.com/{name}"} for name in names}
    for _ in range(3):
        schema_grammar({"properties": properties}, documents={"https://example.com/library": library})
    assert len(searched) == 1

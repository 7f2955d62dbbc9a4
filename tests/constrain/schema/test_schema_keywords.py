"""What each keyword, and each combination that is rewritten, lets be written; jsonschema agrees with every row."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from mlx_agent_llm.bench.grammar_walks import GrammarWalk
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import schema_grammar, schema_rules
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.json_schema_suite import texts_of

STRING = {"type": "string"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
SOME_OTHER = {"type": "object", "not": {"additionalProperties": {"type": "integer"}}}
KIND = {"properties": {"kind": {"const": "a"}}, "required": ["kind"]}

ROWS: list[tuple[str, dict[str, Any], list[Any], list[Any]]] = [
    ("siblings of a reference", {"$ref": "#/$defs/s", "minLength": 2, "$defs": {"s": STRING}}, ["ab"], ["a", 1]),
    ("siblings of anyOf", {"anyOf": [{"minimum": 3}, {"maximum": 0}], "type": "integer"}, [3, 0], [1, "a", 3.5]),
    ("allOf", {"allOf": [{"minimum": 1}, {"maximum": 2}, {"type": "integer"}]}, [1, 2], [0, 3, 1.5]),
    ("enum beside bounds", {"enum": [1, 5, "a", [2]], "maximum": 2}, [1, "a", [2]], [5, 2]),
    ("deep constants", {"const": {"a": [1, {"b": None}]}}, [{"a": [1, {"b": None}]}], [{"a": [1, {"b": 1}]}, {}]),
    ("constants of equal numbers", {"enum": [1.0, 2]}, [1, 2], [True, "1"]),
    ("not a constant", {"type": "integer", "not": {"enum": [3, 5]}}, [2, 4, 6], [3, 5]),
    ("not a type", {"not": {"type": ["integer", "string"]}}, [1.5, None, []], [1, "a"]),
    ("not an object", {"not": KIND}, [{}, {"kind": "b"}], [{"kind": "a"}, 1]),
    ("not a pattern", {"type": "string", "not": {"pattern": "^a"}}, ["", "ba"], ["a", "ab"]),
    ("not a multiple", {"type": "integer", "not": {"multipleOf": 3}}, [1, 2, -4], [0, 3, -6]),
    ("not an integer", {"type": "number", "not": {"type": "integer"}}, [0.5, -1.25], [0, 1, 1.0]),
    ("oneOf of disjoint branches", {"oneOf": [STRING, {"type": "null"}]}, ["a", None], [1]),
    ("oneOf of overlapping branches", {"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2.5, "a"], [2, 1.5]),
    (
        "oneOf of objects told apart by a constant",
        {"oneOf": [KIND, {"properties": {"kind": {"const": "b"}}, "required": ["kind"]}], "type": "object"},
        [{"kind": "a"}, {"kind": "b"}],
        [{}, {"kind": "c"}],
    ),
    (
        "oneOf of required ones",
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}],
        [{}, {"a": 1, "b": 1}, 1],
    ),
    (
        "if, then, else",
        {"if": KIND, "then": {"required": ["x"]}, "else": {"required": ["y"]}},
        [{"kind": "a", "x": 1}, {"y": 1}, {"kind": "b", "y": 1}],
        [{"kind": "a"}, {"x": 1}, {"kind": "a", "y": 1}],
    ),
    ("dependentRequired", {"dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
    (
        "dependentSchemas",
        {"dependentSchemas": {"a": {"properties": {"b": STRING}}}},
        [{"b": 1}, {"a": 1}, {"a": 1, "b": "x"}],
        [{"a": 1, "b": 1}],
    ),
    (
        "draft 7's dependencies",
        {**DRAFT_7, "dependencies": {"a": ["b"], "c": False}},
        [{"a": 1, "b": 1}],
        [{"a": 1}, {"c": 1}],
    ),
    (
        "draft 7's tuples",
        {**DRAFT_7, "items": [STRING, {"type": "null"}], "additionalItems": False},
        [[], ["a"], ["a", None]],
        [[1], ["a", None, 1]],
    ),
    (
        "draft 7's references alone",
        {**DRAFT_7, "$ref": "#/definitions/s", "minLength": 2, "definitions": {"s": STRING}},
        ["a"],
        [1],
    ),
    ("contains", {"contains": {"const": 1}}, [[1], [0, 1, 0], "a"], [[], [0]]),
    ("minContains", {"contains": STRING, "minContains": 2}, [["a", 1, "b"]], [["a"], [1, 2]]),
    ("maxContains", {"contains": STRING, "maxContains": 1}, [["a"], [1, "a"]], [["a", "b"], [1]]),
    ("contains of nothing", {"items": {"contains": False}, "maxItems": 2}, [[], [1], ["a", {}], "a"], [[[]], [[1]]]),
    ("minContains of none", {"contains": STRING, "minContains": 0}, [[], [1], ["a"]], []),
    ("uniqueItems of few values", {"items": {"enum": [1, "a", None]}, "uniqueItems": True}, [["a", 1], []], [[1, 1]]),
    ("uniqueItems of booleans", {"items": {"type": "boolean"}, "uniqueItems": True}, [[True, False]], [[True, True]]),
    (
        "uniqueItems of a tuple of different types",
        {"prefixItems": [STRING, {"type": "integer"}], "items": False, "uniqueItems": True},
        [["a", 1], ["a"]],
        [[1], ["a", "a"]],
    ),
    ("uniqueItems of one item", {"maxItems": 1, "uniqueItems": True}, [[1], []], [[1, 2]]),
    ("unlike items", {"items": {"type": "boolean"}, "not": {"uniqueItems": True}}, [[True, True]], [[True, False], []]),
    (
        "additionalProperties beside properties",
        {"properties": {"a": STRING}, "additionalProperties": {"type": "integer"}},
        [{"a": "x", "b": 1}, {}],
        [{"a": 1}, {"b": "x"}],
    ),
    (
        "patternProperties",
        {"patternProperties": {"^s": STRING, "n$": {"type": "null"}}},
        [{"s": "x", "n": None}],
        [{"s": 1}, {"sn": "x"}],
    ),
    (
        "patterns and nothing else",
        {"patternProperties": {"^s": {}}, "additionalProperties": False},
        [{"s": 1}],
        [{"t": 1}],
    ),
    ("propertyNames of few names", {"propertyNames": {"enum": ["a", "b"]}}, [{"b": 1}, {"a": 1, "b": 2}], [{"c": 1}]),
    ("propertyNames of a length", {"propertyNames": {"maxLength": 2}}, [{"ab": 1}, {}], [{"abc": 1}]),
    ("required names that nobody declares", {"required": ["a"]}, [{"a": 1}, {"a": 1, "b": 2}, 3], [{}, {"b": 2}]),
    ("a property that must not be", {"properties": {"a": False, "b": {}}}, [{}, {"b": 1}], [{"a": 1}]),
    ("minProperties", {"minProperties": 1, "type": "object"}, [{"a": 1}], [{}]),
    (
        "minProperties of declared ones",
        {"properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False, "minProperties": 2},
        [{"a": 1, "c": 1}],
        [{"a": 1}, {}],
    ),
    ("maxProperties", {"maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
    (
        "unevaluatedProperties over allOf",
        {"allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}, "unevaluatedProperties": False},
        [{"a": 1, "b": 2}, {}],
        [{"c": 1}],
    ),
    (
        "unevaluatedProperties over anyOf",
        {
            "anyOf": [{"properties": {"a": STRING}, "required": ["a"]}, {"required": ["b"]}],
            "unevaluatedProperties": {"type": "null"},
        },
        [{"a": "x"}, {"b": None}, {"a": "x", "b": None}],
        [{"b": 1}, {"a": 1, "b": None}, {}],
    ),
    (
        "unevaluatedItems",
        {"prefixItems": [STRING], "contains": {"type": "null"}, "unevaluatedItems": {"type": "integer"}},
        [["a", None, 1], ["a", None]],
        [["a", 1], ["a", None, "b"]],
    ),
    (
        "unevaluatedItems beside a dependency of objects",
        {"dependentSchemas": {"a": {"prefixItems": [True]}}, "unevaluatedItems": False},
        [[], {"a": 1}],
        [[1]],
    ),
    (
        "some property beside the declared ones",
        {"type": "object", "not": {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}},
        [{"b": "x"}, {"a": 1, "b": None}],
        [{}, {"a": "x"}, {"a": "x", "b": 1}],
    ),
    ("anchors", {"$ref": "#s", "$defs": {"x": {"$anchor": "s", "type": "string"}}}, ["a"], [1]),
    (
        "references relative to $id",
        {"$id": "http://x.y/a", "$ref": "b", "$defs": {"x": {"$id": "b", "type": "string"}}},
        ["a"],
        [1],
    ),
    ("pointers with escapes", {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": STRING}}, ["a"], [1]),
    (
        "$dynamicRef to the only anchor",
        {"$dynamicRef": "#s", "$defs": {"x": {"$dynamicAnchor": "s", "type": "string"}}},
        ["a"],
        [1],
    ),
    (
        "recursion within allOf",
        {
            "$defs": {"t": {"properties": {"c": {"$ref": "#/$defs/t"}}}},
            "allOf": [{"$ref": "#/$defs/t"}, {"type": "object"}],
        },
        [{"c": {"c": {}}}, {"c": 1}],
        [1],
    ),
    ("multiples within bounds", {"multipleOf": 0.25, "minimum": 0, "maximum": 1}, [0, 0.5, 1], [0.3, 1.25]),
    ("bounds without a type", {"minimum": 2}, [2, "a", None, [1]], [1, 1.5]),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_keyword_lets_valid_values_be_written_and_no_others(
    schema: dict[str, Any], valid: list[Any], invalid: list[Any]
) -> None:
    validator = validator_for(schema, Draft202012Validator)(schema)
    assert all(map(validator.is_valid, valid)) and not any(map(validator.is_valid, invalid))
    rules = schema_rules(schema, closes_objects=False)
    reader = Pushdown(ContextFreeGrammar(rules.root, rules.rules))
    assert [value for value in valid if not any(map(reader.accepts, texts_of(value)))] == []
    assert [value for value in invalid if any(map(reader.accepts, texts_of(value)))] == []


@pytest.mark.parametrize(
    ("schema", "text", "is_written"),
    [
        ({"type": "object", "properties": {"a": {}, "b": {}}}, '{"a": 1, "b": 2}', True),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, '{"b": 1, "a": 2}', False),
        ({"type": "object", "properties": {"a": {}}}, '{"b": 1}', False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"b": 1, "a": 1}', False),
        ({"type": "object", "properties": {"a": STRING}, "additionalProperties": True}, '{"\\u0061": 1}', False),
        ({"type": "object", "properties": {"a": STRING}, "additionalProperties": True}, '{"a": "x", "a": 1}', False),
        ({"type": "object", "required": ["a"]}, '{"a": 1, "b": 2}', True),
        ({"type": "object"}, '{"a": 1, "a": 2}', True),
        (SOME_OTHER, '{"x": 1, "x": "s"}', True),
        (SOME_OTHER, '{"x": "s", "x": 1}', False),
        ({"minProperties": 1, "type": "object"}, '{"x": 1, "x": 2}', True),
        ({"maxProperties": 1, "type": "object"}, '{"x": 1, "x": 2}', False),
        ({"type": "object"}, '{"a":1}', False),
        ({"type": "object"}, '{ "a": 1}', False),
        ({"type": "array"}, "[1,2]", False),
        (STRING, '"caf\\u00e9 é \\" \\\\ \\n 漢 😀"', True),
        (STRING, '"\\ud800"', False),
        (STRING, '"\t"', False),
        ({"type": "string", "maxLength": 2}, '"\\n😀"', True),
        ({"type": "string", "maxLength": 2}, '"\\u00e9"', False),
        ({"type": "string", "pattern": "^.$"}, '"\\""', True),
        ({"type": "integer"}, "01", False),
        ({"type": "integer"}, "1" * 19, True),
        ({"type": "integer"}, "1" * 20, False),
        ({"type": "integer"}, "1.0", False),
        ({"type": "number"}, "-12.5e-7", True),
        ({"type": "number"}, "1e999", False),
        ({"type": "number", "minimum": 0}, "1e2", False),
        ({"const": 12345678901234567890}, "12345678901234567890", True),
        ({"const": 1.0}, "1.0", True),
        ({"enum": [{"b": 1, "a": 2}]}, '{"b": 1, "a": 2}', True),
        ({}, '{"a": [1, {"b": null}], "a": "again"}', True),
    ],
)
def test_values_are_written_in_one_form(schema: dict[str, Any], text: str, is_written: bool) -> None:
    assert Pushdown(schema_grammar(schema).grammar).accepts(text) == is_written


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "not": {"type": "integer"}},
        {"type": "number", "not": {"multipleOf": 2.25}},
        {"type": "number", "not": {"multipleOf": 3}},
        {"type": "integer", "not": {"multipleOf": 3.0}},
        {"type": "integer", "multipleOf": 17},
        {"multipleOf": 0.01, "type": "number", "minimum": -2, "maximum": 3},
        {"multipleOf": 2.25, "type": "number"},
        {"multipleOf": 0.5, "type": "integer", "exclusiveMinimum": -7},
        {"type": "number", "exclusiveMinimum": 0.1, "maximum": 1e14},
        {"type": "number", "not": {"enum": [0.1, 0, 1e10]}},
        {"type": "integer", "not": {"minimum": -5, "maximum": 5}},
    ],
)
def test_numbers_of_any_size_are_valid_as_jsonschema_reads_them(schema: dict[str, Any]) -> None:
    walk = GrammarWalk(schema_grammar(schema).grammar)
    rng = random.Random(str(schema))
    validator = Draft202012Validator(schema)
    for _ in range(300):
        validator.validate(json.loads(walk.text(rng)))


@pytest.mark.parametrize(
    ("schema", "checked", "written", "not_written"),
    [
        ({"type": "integer", "minimun": 1}, [("", "minimun")], ["3"], ['"a"']),
        ({"type": "string", "pattern": "(?=a)", "maxLength": 2}, [("", "pattern")], ['"b"'], ['"abc"', "1"]),
        ({"type": "string", "not": {"pattern": "(?=a)"}}, [("/not", "pattern")], ['"b"', '"a"'], ["1"]),
        ({"oneOf": [{"type": "null"}, {"pattern": "(?=a)"}]}, [("/oneOf/1", "pattern")], ["1", '"b"', "null"], []),
        ({"items": {"type": "object"}, "uniqueItems": True}, [("", "uniqueItems")], ["[{}, {}]", "[]"], ["[1]"]),
        ({"type": "object", "minProperties": 3}, [("", "minProperties")], ['{"a": 1}'], ["[]"]),
        ({"type": "number", "multipleOf": 0.01}, [("", "multipleOf")], ["0.001"], ["null"]),
        ({"type": "integer"}, [], ["1"], ["1.5"]),
    ],
)
def test_what_a_lenient_grammar_leaves_out_is_listed_and_the_rest_is_kept(
    schema: dict[str, Any], checked: list[tuple[str, str]], written: list[str], not_written: list[str]
) -> None:
    relaxed = schema_grammar(schema, strict=False)
    assert list(relaxed.checked) == checked
    reader = Pushdown(relaxed.grammar)
    assert all(map(reader.accepts, written)) and not any(map(reader.accepts, not_written))

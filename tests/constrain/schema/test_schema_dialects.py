"""Schemas of every dialect, with references into further documents and with both spacings."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import JSONNotation, schema_grammar, schema_rules, write_json
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar, choice

DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT_2019 = {"$schema": "https://json-schema.org/draft/2019-09/schema"}
STRING = {"type": "string"}


def accepts(schema: dict[str, Any], text: str, **options: Any) -> bool:
    return Pushdown(schema_grammar(schema, **options).grammar).accepts(text)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer", "maximum": 3, "exclusiveMaximum": True, "minimum": 2}, "2", "3"),
        ({**DRAFT_4, "type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 4}, "4", "3"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": 4, "maximum": 5}, "5", "4"),
        ({"type": "string", "nullable": True}, "null", "1"),
        ({"items": [{"type": "null"}], "additionalItems": STRING, "type": "array"}, '[null, "a"]', "[null, 1]"),
        ({"items": STRING, "additionalItems": False, "type": "array"}, '["a", "b"]', "[1]"),
        ({**DRAFT_7, "definitions": {"a": STRING}, "$ref": "#/definitions/a", "type": "null"}, '"x"', "null"),
        ({**DRAFT_4, "const": 1, "type": "integer"}, "2", '"a"'),
        ({**DRAFT_2019, "$recursiveRef": "#/$defs/a", "$defs": {"a": STRING}}, '"x"', "1"),
        ({**DRAFT_2019, "type": "array", "items": {"$recursiveRef": "#"}}, "[[], [[]]]", "[1]"),
        ({**DRAFT_2019, "dependencies": {"a": ["b"]}, "type": "object"}, '{"a": 1}', "1"),
        ({"$ref": "#/bolts/m8", "bolts": {"m8": STRING}}, '"x"', "1"),
        ({"$ref": "#/a~1b/0", "a/b": [STRING]}, '"x"', "1"),
        ({"type": "integer", "format": "int8"}, "-128", "128"),
        ({"type": "integer", "format": "uint64"}, "18446744073709551615", "18446744073709551616"),
        ({"type": "integer", "format": "int64"}, "-9223372036854775808", "9223372036854775808"),
        ({"type": "string", "format": "sonnet", "maxLength": 1}, '"x"', '"xy"'),
        ({**DRAFT_4, "id": "http://a/b.json", "allOf": [{"$ref": "c.json#/x"}]}, '"x"', "1"),
    ],
)
def test_each_dialect_is_read_as_it_says(schema: dict[str, Any], valid: str, invalid: str) -> None:
    documents = {"http://a/c.json": {"x": STRING}}
    assert accepts(schema, valid, documents=documents) and not accepts(schema, invalid, documents=documents)


def test_a_discriminator_is_written_so_that_branches_are_told_apart() -> None:
    branches = [
        {"type": "object", "properties": {"kind": {"const": kind}, kind: {"type": "integer"}}} for kind in ("a", "b")
    ]
    schema = {"oneOf": branches, "discriminator": {"propertyName": "kind"}}
    assert accepts(schema, '{"kind": "a", "a": 1}') and accepts(schema, '{"kind": "b"}')
    assert not accepts(schema, "{}") and not accepts(schema, '{"kind": "a", "a": "x"}')


@pytest.mark.parametrize(
    ("schema", "invalid"),
    [
        ({"type": "string", "not": {"format": "time"}}, '"23:59:60Z"'),
        ({"type": "string", "not": {"format": "uuid"}}, '"{12345678-1234-1234-1234-123456789ABC}"'),
        ({"type": "string", "if": {"format": "date"}, "then": True, "else": {"const": "20240101"}}, '"20240101"'),
        ({"type": "string", "oneOf": [{"maxLength": 30}, {"format": "date-time"}]}, '"2024-01-01T00:00:60Z"'),
    ],
)
def test_what_some_reader_takes_for_a_format_is_never_written_as_none_of_it(
    schema: dict[str, Any], invalid: str
) -> None:
    assert not accepts(schema, invalid)


def test_references_lead_into_documents_of_other_dialects_and_on() -> None:
    documents = {
        "a.json": {**DRAFT_7, "$ref": "b.json#/definitions/x"},
        "b.json": {**DRAFT_4, "definitions": {"x": {"type": "integer", "maximum": 3, "exclusiveMaximum": True}}},
    }
    schema = {"type": "array", "items": {"$ref": "a.json"}}
    assert accepts(schema, "[2, 1]", documents=documents) and not accepts(schema, "[3]", documents=documents)


def test_what_is_wrong_in_a_document_is_named_with_its_address() -> None:
    documents = {"b.json": {"x": {"type": "text"}, "y": {"minimun": 3}}}
    for name in ("x", "y"):
        with pytest.raises(RequestError, match=f"b.json#/{name}"):
            schema_grammar({"$ref": f"b.json#/{name}"}, documents=documents)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
def test_values_are_written_with_the_separators_that_are_asked_for(separators: tuple[str, str]) -> None:
    schema = {"type": "object", "properties": {"a": {}, "b": {"const": [1, {"c": 2}]}}, "required": ["a", "b"]}
    value = {"a": [1, {"x": [True, None]}], "b": [1, {"c": 2}]}
    for written in [(",", ":"), (", ", ": "), (" ,\n", " :\t")]:
        is_written = accepts(schema, write_json(value, written), separators=separators)
        assert is_written == (written == separators)


def test_both_spacings_stand_in_one_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    spaced = schema_rules(schema, "spaced_")
    compact = schema_rules(schema, "compact_", notation=JSONNotation((",", ":")))
    reader = Pushdown(ContextFreeGrammar(choice([spaced.root, compact.root]), {**spaced.rules, **compact.rules}))
    assert reader.accepts('{"a": [1, {"b": 2}]}') and reader.accepts('{"a":[1,{"b":2}]}')
    assert not reader.accepts('{"a":[1, 2]}')

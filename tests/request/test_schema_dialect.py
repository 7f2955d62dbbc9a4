"""What the dialects of JSON Schema have in common and what not, by their keywords."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import pytest

from mlx_agent_llm import JSONSchema
from mlx_agent_llm.constrain.schema.read.keywords import FORMS
from mlx_agent_llm.constrain.schema.read.vocabulary import VOCABULARY
from mlx_agent_llm.constrain.schema.values.formats import NUMBER_FORMATS, STRING_FORMATS
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.request.content_key import content_key, kept_key
from mlx_agent_llm.request.schema_dialect import ANNOTATIONS, DIALECTS, FORMATS, SILENT, dialect_of, near_miss
from mlx_agent_llm.request.schema_documents import SchemaDocuments

# Keywords of configuration files and generators that resemble none of JSON Schema's.
FOREIGN = "markdownDescription enumDescriptions defaultSnippets tsType order hidden name node element mode key group"


@pytest.mark.parametrize(
    ("schema", "ignored"),
    [
        ({"type": "string", "title": "t", "mystery": 1, "x-order": 2}, (("", "mystery"), ("", "x-order"))),
        ({"properties": {"a/b": {"format": "sonnet", "widget": "w"}}}, (("/properties/a~1b", "format"),) * 1),
        ({"items": [{}, {"options": {}}]}, (("/items/1", "options"),)),
        ({"$schema": "https://example.com/mine", "type": "null"}, (("", "$schema"),)),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 1}, (("", "const"),)),
        ({"properties": {"const": {}, "widget": {}}, "const": {"widget": 1}}, ()),
        ({"$defs": {"a": {"widget": 1}}}, (("/$defs/a", "widget"),)),
    ],
)
def test_what_enforces_nothing_is_listed(schema: dict[str, Any], ignored: tuple[tuple[str, str], ...]) -> None:
    found = JSONSchema(schema).ignored_keywords
    assert set(ignored) <= set(found)
    assert all(
        keyword in ("widget", "format", "mystery", "x-order", "options", "$schema", "const") for _, keyword in found
    )
    assert bool(found) == bool(ignored)


@pytest.mark.parametrize("keyword", sorted(ANNOTATIONS | {*FOREIGN.split(), "x-minimum", "$minimum"}))
def test_no_annotation_is_taken_for_a_slip(keyword: str) -> None:
    assert near_miss(keyword, SILENT) is None


@pytest.mark.parametrize("keyword", sorted(SILENT.keywords - {"$ref", "$dynamicRef", "$recursiveRef"}))
def test_another_case_of_a_keyword_is_a_slip(keyword: str) -> None:
    assert near_miss(keyword.upper(), SILENT) == keyword


def test_every_keyword_of_a_dialect_has_a_form_and_a_reader() -> None:
    read_with_others = {"then", "else", "minContains", "maxContains", "nullable", "discriminator"}
    for dialect in [SILENT, *DIALECTS.values()]:
        assert dialect.keywords - read_with_others <= VOCABULARY.keys()
        assert dialect.keywords - {"divisibleBy", "extends", "disallow"} <= FORMS.keys() | {
            "exclusiveMinimum",
            "exclusiveMaximum",
        }
    assert STRING_FORMATS | NUMBER_FORMATS.keys() == FORMATS


@pytest.mark.parametrize("name", ["http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema#"])
def test_a_dialect_is_known_with_and_without_a_hash_and_by_both_schemes(name: str) -> None:
    assert dialect_of({"$schema": name}).name == "draft-07"


@pytest.mark.parametrize("separators", [(",", ": ", ""), ("", ":"), (", ", "="), (",\u00a0", ":"), ", ", 3])
def test_separators_are_a_comma_and_a_colon_with_blanks(separators: Any) -> None:
    with pytest.raises(ConstraintError, match="separators="):
        JSONSchema({}, separators=separators)


@pytest.mark.parametrize("documents", [[], {"a": 3}, {"": {}}, {3: {}}])
def test_documents_are_schemas_by_uri(documents: Any) -> None:
    with pytest.raises(ConstraintError, match="documents"):
        JSONSchema({}, documents=documents)


def test_the_key_tells_documents_and_separators_apart() -> None:
    keys = {JSONSchema({}).key, JSONSchema({}, separators=(",", ":")).key, JSONSchema({}, documents={"a": {}}).key}
    assert len(keys) == 3


def test_documents_that_come_again_are_written_as_one_text_and_others_are_told_apart() -> None:
    document = {"$defs": {"a": {"enum": [1, "1", None, True]}}}
    text = kept_key("document", document)
    assert kept_key("document", json.loads(json.dumps(document))) is text
    assert kept_key("document", OrderedDict(document)) == text == content_key("document", document)
    changed = {"$defs": {"a": {"enum": [1.0, "1", None, True]}}}
    assert JSONSchema({}, documents={"a": document}).key != JSONSchema({}, documents={"a": changed}).key
    document["$defs"]["a"]["enum"].append(2)
    assert kept_key("document", document) == content_key("document", document) != text


def test_documents_are_read_once_and_as_they_were_then() -> None:
    integer, text = {"type": "integer"}, {"type": "string"}
    given = {"urn:a": integer}
    constraint = JSONSchema({"$ref": "urn:a"}, documents=given)
    given["urn:a"] = text
    assert dict(constraint.documents) == {"urn:a": integer}
    read = SchemaDocuments(given)
    assert SchemaDocuments.of(read) is read
    assert JSONSchema({}, documents=read).documents is read
    assert JSONSchema({}, documents=read).key == JSONSchema({}, documents=given).key != constraint.key


def test_documents_that_are_no_json_are_refused() -> None:
    for value in ({1, 2}, float("nan"), "\ud800", b"a", object()):
        with pytest.raises(ConstraintError, match="document is not JSON"):
            JSONSchema({}, documents={"a": {"const": value}})

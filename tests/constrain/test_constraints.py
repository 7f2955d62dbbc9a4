"""Random walks through compiled grammars: whatever a grammar lets a model write must be valid."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from mlx_agent_llm.constrain.backends import CompiledConstraint, GrammarCompiler
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.errors import ConstraintError, GenerationError, UnsupportedSchemaError
from mlx_agent_llm.request.constraints import Constraint, JSONSchema, Regex
from tests.support.search import examples

SPECIAL, EOS, OTHER_EOS = 256, 257, 258
VOCAB_SIZE = 300  # 259 tokens and 41 padding ids
NUM_WORDS = 10
CLOSING = b'"}],:0123456789'

WALKS = settings(max_examples=examples(150))


TOKENS = [bytes([value]) for value in range(256)] + [b"", b"", b""]
COMPILER = GrammarCompiler(
    TOKENS, VOCAB_SIZE, {EOS, OTHER_EOS}, {SPECIAL: "<special>", EOS: "<end>", OTHER_EOS: "<other end>"}
)


def compiled(constraint: Constraint) -> CompiledConstraint:
    return COMPILER.compile(constraint_grammar(constraint))


def next_tokens(matcher: GrammarMatcher) -> list[int]:
    mask = np.zeros((2, NUM_WORDS), np.int32)
    matcher.fill_mask(mask, 1)
    assert not mask[0].any()
    return [int(token) for token in np.flatnonzero(np.unpackbits(mask[1].view(np.uint8), bitorder="little"))]


def walk(matcher: GrammarMatcher, rng: random.Random, patience: int = 60, errors: str = "strict") -> str:
    """Sample allowed tokens uniformly until the text ends; after `patience` tokens prefer what closes.

    Free text may hold any bytes, as it may without a grammar: `errors` says how they are decoded.
    """
    text = bytearray()
    for step in range(20_000):
        if matcher.is_finished:
            return text.decode(errors=errors)
        allowed = next_tokens(matcher)
        assert not set(allowed) & ({SPECIAL} | set(range(259, VOCAB_SIZE)))
        closing = [token for token in allowed if token in (EOS, OTHER_EOS) or token in CLOSING]
        if step > patience and {EOS, OTHER_EOS} & set(allowed):
            token = EOS
        elif closing and rng.random() < (0.9 if step > patience else 0.2):
            token = closing[0] if step > patience and rng.random() < 0.5 else rng.choice(closing)
        else:
            token = rng.choice(allowed)
        assert matcher.accept(token)
        if token not in (EOS, OTHER_EOS):
            text.append(token)
    raise AssertionError(f"no end after {len(text)} bytes: {bytes(text[:200])!r}")


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether the whole text, and then the end token, is allowed by the masks and by accept alike."""
    matcher = compiled(constraint).matcher()
    for byte in text.encode():
        if matcher.is_finished or byte not in next_tokens(matcher):
            return False
        assert matcher.accept(byte)
    return matcher.is_finished or EOS in next_tokens(matcher)


def parse(text: str) -> Any:
    """json.loads, strictly: no NaN, and nothing that cannot be written as UTF-8 again."""
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
bounds = st.one_of(
    st.integers(-200, 200),
    st.integers(-(10**14), 10**14),
    st.floats(-1000, 1000),
    st.decimals(-100, 100, places=3).map(float),
)


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number", ["number", "integer"]]))}
    names = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]
    return schema | draw(st.dictionaries(st.sampled_from(names), bounds, max_size=3))


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    least, most = draw(st.integers(0, 6)), draw(st.none() | st.integers(0, 6))
    lengths = {"minLength": least} | ({} if most is None else {"maxLength": least + most})
    return draw(st.sampled_from([{"type": "string"}, {"type": "string"} | lengths]))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array"}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    if draw(st.booleans()):
        schema["items"] = draw(inner | st.booleans())
    if draw(st.booleans()):
        schema["minItems"] = draw(st.integers(0, 4))
    if draw(st.booleans()):
        schema["maxItems"] = schema.get("minItems", 0) + draw(st.integers(0, 4))
    return schema


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    if draw(st.integers(0, 3)) == 0:
        return {"type": "object"} | draw(st.fixed_dictionaries({}, optional={"additionalProperties": inner}))
    properties = draw(st.dictionaries(st.text(max_size=5), inner, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    closed = draw(st.sampled_from([{}, {"additionalProperties": False}]))
    return {"type": "object", "properties": properties, "required": required} | closed


references = st.sampled_from([{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/a~1b", "description": "x"}])
schemas = st.recursive(
    st.one_of(
        numbers(),
        strings(),
        st.sampled_from([{"type": "null"}, {"type": "boolean"}, {}, True, {"type": ["string", "null"]}]),
        st.builds(lambda value: {"const": value}, json_values),
        st.builds(lambda values: {"enum": values, "title": "t"}, st.lists(json_values, min_size=1, max_size=4)),
        references,
    ),
    lambda inner: st.one_of(
        arrays(inner),
        objects(inner),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda schema: {"allOf": [schema]}, inner),
    ),
    max_leaves=6,
)
DEFS = {
    "tree": {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "c": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "required": ["c"],
    },
    "a/b": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/tree"}]},
}


@WALKS
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_every_text_of_a_schemas_grammar_is_valid_for_the_schema(schema: Any, seed: int) -> None:
    rooted = {"$defs": DEFS} | (schema if isinstance(schema, dict) else {})
    try:
        grammar = compiled(JSONSchema(rooted))
    except (ConstraintError, UnsupportedSchemaError):
        return  # refusing is always sound; what must not be refused is listed in test_preflight.py
    validator = Draft202012Validator(rooted)
    for attempt in range(4):
        text = walk(grammar.matcher(), random.Random(seed + attempt))
        assert validator.is_valid(parse(text)), text


@WALKS
@given(schema=numbers(), values=st.lists(st.floats(-2000, 2000) | st.integers(-2000, 2000), max_size=5))
def test_a_number_within_bounds_can_be_written_and_one_outside_cannot(schema: Any, values: list[Any]) -> None:
    given_bounds = [bound for name, bound in schema.items() if name != "type"]
    try:
        constraint = JSONSchema(schema)
        compiled(constraint)
    except (ConstraintError, UnsupportedSchemaError):
        return
    neighbours = [edge + step for edge in given_bounds for step in (-1, -0.001, 0, 0.001, 1)]
    for value in values + neighbours:
        text = repr(value if isinstance(value, int) else round(value, 3)).removesuffix(".0")
        if "e" not in text:
            valid = Draft202012Validator(schema).is_valid(json.loads(text))
            # Whole numbers are not always written as 1.0, and -0.0 is written as 0.
            if not (schema["type"] == "integer" and "." in text) and text != "-0":
                assert accepts(constraint, text) == valid, text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, '"caf\\u00e9 é \\" \\\\ \\n 漢 😀"'),
        ({"type": "string", "minLength": 2, "maxLength": 2}, '"\\n😀"'),
        ({"type": "number"}, "-12.5e-7"),
        ({"type": "integer"}, "1862034567890123456"),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}}, '{"b": null}'),
        ({"type": "object", "properties": {'q"\n': {"const": 1.5}}}, '{"q\\"\\n": 1.5}'),
        ({"type": "array", "items": {"type": "boolean"}}, "[true, false]"),
        ({"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False}, "[null]"),
        ({"enum": [{"a": [1, "x"]}, 12345678901234567890]}, "12345678901234567890"),
        ({}, '{"a": [1, {"b": null}], "a": "again"}'),
    ],
)
def test_valid_texts_can_be_written(schema: dict[str, Any], text: str) -> None:
    assert accepts(JSONSchema(schema), text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, '"\\ud800"'),
        ({"type": "string"}, '"\t"'),
        ({"type": "string", "maxLength": 1}, '"ab"'),
        ({"type": "integer"}, "01"),
        ({"type": "integer"}, "1" * 20),
        ({"type": "number"}, "1e999"),
        ({"type": "number"}, "1."),
        ({"type": "object", "properties": {"a": {}}}, '{"a": 1, "a": 2}'),
        ({"type": "object", "properties": {"a": {}}}, '{"a":1}'),
        ({"type": "object", "properties": {"a": {}}}, '{ "a": 1}'),
        ({"type": "array", "items": {}}, "[ 1]"),
        ({"type": "array", "items": {}}, "[1,2]"),
        ({"type": "integer"}, "1 "),
    ],
)
def test_invalid_texts_and_free_blanks_cannot_be_written(schema: dict[str, Any], text: str) -> None:
    assert not accepts(JSONSchema(schema), text)


def test_a_raw_surrogate_cannot_be_written_as_bytes() -> None:
    matcher = compiled(JSONSchema({"type": "string"})).matcher()
    assert matcher.accept(ord('"')) and matcher.accept(0xED)
    assert 0xA0 not in next_tokens(matcher) and 0x9F in next_tokens(matcher)


def test_an_integer_can_go_on_after_its_first_digit_and_an_object_cannot_go_on_after_its_brace() -> None:
    integer = compiled(JSONSchema({"type": "integer"})).matcher()
    assert integer.accept(ord("1"))
    assert not integer.is_finished
    assert {EOS, OTHER_EOS, ord("0")} <= set(next_tokens(integer))
    empty = compiled(JSONSchema({"type": "object", "properties": {}})).matcher()
    assert empty.accept(ord("{")) and not empty.is_finished
    assert empty.accept(ord("}")) and empty.is_finished
    assert set(next_tokens(empty)) == {EOS, OTHER_EOS}


def test_every_end_token_finishes() -> None:
    for end in (EOS, OTHER_EOS):
        matcher = compiled(JSONSchema({"type": "integer"})).matcher()
        assert matcher.accept(ord("7")) and matcher.accept(end)
        assert matcher.is_finished


def test_a_token_outside_the_mask_is_rejected_and_changes_nothing() -> None:
    matcher = compiled(JSONSchema({"const": "ab"})).matcher()
    before = next_tokens(matcher)
    for token in (ord("x"), EOS, SPECIAL, 299):
        assert not matcher.accept(token)
    assert next_tokens(matcher) == before == [ord('"')]


def test_special_and_padding_tokens_are_never_allowed_in_free_text() -> None:
    matcher = compiled(Regex("(?s).*")).matcher()
    allowed = set(next_tokens(matcher))
    assert SPECIAL not in allowed and max(allowed) == OTHER_EOS
    assert {EOS, OTHER_EOS, ord("a")} <= allowed
    assert not matcher.is_finished


def test_a_position_without_any_token_is_a_fault() -> None:
    letters = GrammarCompiler([b"a", b""], 2, {1}, {1: "<end>"})
    matcher = letters.compile(constraint_grammar(JSONSchema({"const": "a"}))).matcher()
    with pytest.raises(GenerationError, match="no token"):
        matcher.fill_mask(np.zeros((1, 1), np.int32), 0)


def test_matchers_of_one_grammar_do_not_share_their_cursor() -> None:
    grammar = compiled(JSONSchema({"const": "ab"}))
    one, other = grammar.matcher(), grammar.matcher()
    assert one.accept(ord('"'))
    assert next_tokens(one) == [ord("a")] and next_tokens(other) == [ord('"')]


def test_constraints_are_values_of_their_content() -> None:
    class Point(BaseModel):
        x: int

    assert JSONSchema(Point) == JSONSchema(Point.model_json_schema())
    assert hash(JSONSchema(Point)) == hash(JSONSchema(Point.model_json_schema()))
    assert JSONSchema({"const": 1}) != Regex("1")
    reordered = {"type": "object", "properties": {"b": {}, "a": {}}}
    assert JSONSchema({"type": "object", "properties": {"a": {}, "b": {}}}) != JSONSchema(reordered)


@pytest.mark.parametrize("schema", ["string", None, int, {"const": math.nan}, {"const": {1, 2}}, {"const": "\ud800"}])
def test_what_is_no_schema_is_refused_when_the_constraint_is_made(schema: Any) -> None:
    with pytest.raises(ConstraintError):
        JSONSchema(schema)

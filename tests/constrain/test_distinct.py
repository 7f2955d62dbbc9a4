"""Items that must differ, by the real matchers: none comes twice, all others can be written, and there is an end."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.constrain.closing.close_in_time import CloseInTime
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.distinct import DistinctConstraint, DistinctMatcher, TokenTexts
from mlx_agent_llm.constrain.schema import JSONNotation, schema_grammar, schema_rules
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import UnsupportedSchemaError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar

END = 0
PIECES = [
    '"',
    '",',
    '", "',
    '", "a',
    '", "a", "a"',
    '"]',
    '"a"',
    "1, 1",
    "1,",
    ", 1",
    "1]",
    '"}',
    '": ',
    "ab",
    "aa",
    "true",
    ", ",
]
TOKENS = [b"", *(bytes([byte]) for byte in range(256)), *(piece.encode() for piece in PIECES), "é".encode()]
SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": {"items": {"type": "string"}},
    "three strings": {"items": {"type": "string"}, "minItems": 3, "maxItems": 5},
    "short strings": {"items": {"type": "string", "maxLength": 1}, "minItems": 2},
    "few texts": {"items": {"type": "string", "pattern": "^[ab]{1,3}$"}, "minItems": 13},
    "a or b and more": {"items": {"type": "string", "pattern": "^(a|b+)$"}},
    "accents": {"items": {"type": "string", "pattern": "^[aéè]{2}$"}, "minItems": 9},
    "integers": {"items": {"type": "integer"}, "minItems": 2},
    "small integers": {"items": {"type": "integer", "minimum": 1, "maximum": 12}, "minItems": 12},
    "numbers": {"items": {"type": "number", "minimum": 0, "maximum": 2}},
    "objects": {"items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}}},
    "lists": {"items": {"type": "array", "items": {"enum": [0, 1]}, "maxItems": 4}, "minItems": 4},
    "mixed": {"items": {"type": ["string", "integer", "null", "boolean"], "maxLength": 2}},
}


def constraint_of(schema: dict[str, Any]) -> DistinctConstraint:
    grammar = schema_grammar({"type": "array", "uniqueItems": True, **schema}).grammar
    compiler = GrammarCompiler(TOKENS, len(TOKENS), [END], {})
    closing = Closing(grammar, Spelling(TOKENS, {}, [END]))
    return DistinctConstraint(compiler.compile(grammar), grammar, closing, TokenTexts(compiler.token_texts))


def allowed_by(matcher: DistinctMatcher) -> list[int]:
    mask = np.zeros((1, (len(TOKENS) + 31) // 32), np.int32)
    matcher.fill_mask(mask, 0)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def walk(constraint: DistinctConstraint, rng: random.Random, budget: int) -> str:
    """A text of random tokens, most of them such as occur in the items that are there already."""
    matcher, close, text = constraint.matcher(), CloseInTime(constraint.closing), b""
    for num_left in reversed(range(budget)):
        allowed = allowed_by(matcher)
        likely = [token for token in allowed if TOKENS[token] and TOKENS[token] in text + b'"a1, b]']
        token = rng.choice(likely if likely and rng.random() < 0.9 else allowed)
        if token == END:
            return text.decode()
        if not close.take(token, num_left):
            tokens = close.closing_tokens()
            assert len(tokens) <= num_left + 1
            assert all(map(matcher.accept, tokens))
            return (text + b"".join(TOKENS[token] for token in tokens)).decode()
        assert matcher.accept(token), TOKENS[token]
        text += TOKENS[token]
    raise AssertionError("it did not end within its budget")


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_walk_repeats_an_item_and_each_ends_within_its_budget(name: str) -> None:
    schema = {"type": "array", "uniqueItems": True, **SCHEMAS[name]}
    constraint = constraint_of(SCHEMAS[name])
    for seed in range(6):
        value = json.loads(walk(constraint, random.Random(seed), budget=120))
        assert violation(schema, value) is None, value


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_mask_holds_exactly_the_tokens_that_lead_on(name: str) -> None:
    constraint = constraint_of(SCHEMAS[name])
    for seed in range(3):
        rng, matcher = random.Random(seed), constraint.matcher()
        for _ in range(25):
            allowed = set(allowed_by(matcher))
            accepted = set()
            for token in range(len(TOKENS)):
                if matcher.accept(token):
                    accepted.add(token)
                    matcher.rollback(1)
            assert allowed == accepted, [TOKENS[token] for token in allowed ^ accepted]
            likely = [token for token in allowed if set(TOKENS[token]) <= set(b'"a1, b')]
            token = rng.choice(sorted(likely) or sorted(allowed))
            if token == END:
                break
            matcher.accept(token)


@pytest.mark.parametrize(
    ("schema", "written", "not_written"),
    [
        ({"items": {"type": "string"}}, '["a", "aa", ""]', '["a", "aa", "a"]'),
        ({"items": {"type": "integer"}}, "[1, 11, 111]", "[1, 11, 1]"),
        ({"items": {"type": "number"}}, "[1, 1.5]", "[1.5, 1.5]"),
        ({"items": {"enum": list(range(30))}}, str(list(range(30))), "[3, 3]"),
        ({"items": {"type": "object", "properties": {"a": {"type": "null"}}}}, '[{}, {"a": null}]', "[{}, {}]"),
    ],
)
def test_items_that_differ_are_written(schema: dict[str, Any], written: str, not_written: str) -> None:
    reader = Pushdown(schema_grammar({"type": "array", "uniqueItems": True, **schema}).grammar)
    assert reader.accepts(written) and not reader.accepts(not_written)


def test_every_array_begins_anew() -> None:
    inner = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    reader = Pushdown(schema_grammar({"type": "array", "items": inner}).grammar)
    assert reader.accepts('[["a", "b"], ["b", "a"]]') and not reader.accepts('[["a"], ["b", "b"]]')


def test_one_of_several_readings_may_repeat_an_item() -> None:
    texts = {"type": "array", "items": {"type": "string"}}
    schema = {"anyOf": [{**texts, "uniqueItems": True, "minItems": 3}, {**texts, "maxItems": 2}]}
    reader = Pushdown(schema_grammar(schema).grammar)
    assert reader.accepts('["a", "a"]') and reader.accepts('["a", "b", "c"]')
    assert not reader.accepts('["a", "b", "a"]')


class OtherNotation(JSONNotation):
    """Values that are not written as JSON."""


def test_notations_that_are_not_json_refuse_what_they_cannot_tell_apart() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    with pytest.raises(UnsupportedSchemaError, match="uniqueItems"):
        schema_rules(schema, notation=OtherNotation())
    assert schema_rules(schema, notation=JSONNotation((",", ":"))).rules


def test_a_grammar_is_a_value() -> None:
    grammars = [schema_grammar({"type": "array", "items": {"type": "string"}, "uniqueItems": True}) for _ in range(2)]
    assert (
        isinstance(grammars[0].grammar, ContextFreeGrammar) and grammars[0].grammar.rules == grammars[1].grammar.rules
    )

"""Grammars cut into the lexemes of JSON: equal to what they were, and read exactly where that is said."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlx_agent_llm.constrain.backends.backends import Backends
from mlx_agent_llm.constrain.backends.comparison import compare
from mlx_agent_llm.constrain.backends.cursor import LLGuidanceCursor
from mlx_agent_llm.constrain.backends.lark import lark_text
from mlx_agent_llm.constrain.backends.lexemes import _pairs, has_clear_lexemes, in_lexemes
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    DistinctNode,
    Node,
    PatternNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.context_free.reduced import reduced
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.languages.regular import Language, literal
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER
from tests.support.library_walks import LibraryWalks
from tests.support.search import examples

PIECES = [b'"a', b'a"', b'",', b', "', b'": ', b'"a": ', b"12", b"1,", b"1]", b"],", b', "b', b"nu", b'\\"', b'["']
TOKENS = [*(bytes([byte]) for byte in b'ab"\\[]{},: 012.-nul'), *PIECES, b"", b""]
WALKS = LibraryWalks(TOKENS)
BACKENDS = Backends(TOKENS, WALKS.end)


def pattern(text: str) -> PatternNode:
    return PatternNode(parse_full_match(text))


LEAVES: list[Node] = [
    *map(TextNode, ['"a": ', ', "a": ', ', "b": ', ", ", "[", "]", "null", '"a"', '"a", 1', "1", ",", '["a", null]']),
    *map(pattern, [r'"[ab]*"', r'"(a|\\")*"', r'"b+"', r"[12]+", r"-?1(\.2+)?", r'null|"a"|1', r'"a+": ', r'"a', "n+"]),
]
PATTERNS = st.sampled_from([leaf.language for leaf in LEAVES if isinstance(leaf, PatternNode)])


@st.composite
def grammars(draw: st.DrawFn) -> ContextFreeGrammar:
    """A recursive grammar of the leaves of JSON, and of some that are not."""
    leaf = st.sampled_from(LEAVES)
    call = st.builds(lambda one: SequenceNode((one, RuleNode("r"))), leaf)
    part = st.one_of(leaf, leaf, call)
    option = st.lists(part, min_size=1, max_size=4).map(lambda parts: SequenceNode(tuple(parts)))
    body = st.lists(option, min_size=1, max_size=4).map(lambda options: ChoiceNode(tuple(options)))
    return ContextFreeGrammar(draw(body), {"r": ChoiceNode((draw(leaf), draw(body)))})


@settings(max_examples=examples(60))
@given(grammar=grammars(), seed=st.integers(0, 2**32))
def test_a_grammar_with_clear_lexemes_is_read_exactly(grammar: ContextFreeGrammar, seed: int) -> None:
    written = reduced(in_lexemes(grammar))
    assume(has_clear_lexemes(written))
    lark = lark_text(written, has_lexemes=True)
    WALKS.assert_agree(grammar, BACKENDS._compile_with_llguidance(lark), seed)


@settings(max_examples=examples(40))
@given(leaves=st.sets(st.one_of(st.text("12-.", min_size=1, max_size=3).map(literal), PATTERNS), max_size=8))
def test_no_pair_of_which_one_may_begin_the_other_is_left_out(leaves: set[Language]) -> None:
    pairs = set(_pairs(leaves))
    for one, other in product(leaves, repeat=2):
        assert (one, other) in pairs or not compare(one, other, ANY_CHARACTER).goes_on


def test_thousands_of_texts_are_paired_only_where_one_begins_the_other() -> None:
    texts = [literal(str(number)) for number in range(3000)]
    assert len([*_pairs(texts)]) == 90 + 900 * 2 + 2000 * 3  # of two, three and four digits, with all beginnings


def test_the_names_that_an_object_does_not_declare_are_written_as_two_kinds_of_strings() -> None:
    schema = {"properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "null"}}
    grammar = schema_grammar({"type": "object", **schema}).grammar
    written = reduced(in_lexemes(grammar))
    assert has_clear_lexemes(written)
    lark = lark_text(written, has_lexemes=True)
    assert re.search(r"^L\d+: \((L\d+) L\d+ \1\) & ~\(\1 L\d+ \1\)$", lark, re.MULTILINE)
    for seed in range(5):
        WALKS.assert_agree(grammar, BACKENDS._compile_with_llguidance(lark), seed)


def recursive(*options: Node) -> ContextFreeGrammar:
    return ContextFreeGrammar(
        RuleNode("r"), {"r": ChoiceNode((*options, SequenceNode((TextNode("["), RuleNode("r"), TextNode("]")))))}
    )


@pytest.mark.parametrize(
    ("is_clear", "options"),
    [
        (True, [pattern(r'"[ab]*"'), TextNode('"a"'), pattern("[0-9]+"), TextNode("null")]),
        (True, [pattern(r'"([^"\\]|\\["\\])*"'), pattern(r'"a"|null|1')]),
        (True, [SequenceNode((pattern("[0-9]+"), TextNode(", ")))]),
        (False, [SequenceNode((pattern("[0-9]+"), TextNode("0")))]),
        (False, [pattern('"a')]),
        (False, [pattern('"a"b')]),
        (False, [pattern(r'"a\\"')]),
        (False, [TextNode('"a')]),
        (False, [TextNode("a"), SequenceNode((TextNode("a"), pattern("[ab]"))), TextNode("ab1")]),
        (False, [pattern('null|"a"*')]),
    ],
)
def test_lexemes_are_clear_where_no_leaf_goes_on_after_the_end_of_another(is_clear: bool, options: list[Node]) -> None:
    assert has_clear_lexemes(reduced(in_lexemes(recursive(*options)))) is is_clear


def test_texts_are_cut_at_strings_brackets_and_separators() -> None:
    cut = in_lexemes(ContextFreeGrammar(TextNode('{"a, [b\\"": [null, -1.5, "c"]}')))
    lexemes = ["{", '"a, [b\\""', ": ", "[", "null", ", ", "-1.5", ", ", '"c"', "]", "}"]
    assert cut.root == SequenceNode(tuple(map(TextNode, lexemes)))


def test_what_stands_before_an_item_that_must_differ_is_cut_off() -> None:
    item = DistinctNode(parse_full_match(', "[ab]*"'), ", ", frozenset('"'))
    cut = Pushdown(in_lexemes(ContextFreeGrammar(item)))
    assert cut.accepts(', "ab"') and not cut.accepts('"ab"')
    assert has_clear_lexemes(in_lexemes(recursive(item)))


TREE = {"$ref": "#"}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"demands": TREE}, "additionalProperties": TREE},
        {"properties": {"script": {"const": "a"}, "scripts": TREE}, "additionalProperties": True},
        {"anyOf": [{"properties": {"using": {"const": "a"}}, "additionalProperties": TREE}, {"type": "integer"}]},
        {"type": "array", "uniqueItems": True, "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}},
        {"enum": [None, {"a": [1, {"b": "c"}]}, "a"], "x-": 0},
    ],
)
def test_recursive_schemas_with_other_names_and_constants_go_to_llguidance(schema: dict[str, Any]) -> None:
    holder = {"type": "object", "properties": {"inner": schema, "more": TREE}, "required": ["inner"]}
    assert isinstance(BACKENDS.compile(schema_grammar(holder).grammar)(), LLGuidanceCursor)


def test_a_grammar_that_nothing_satisfies_is_refused_before_it_is_cut() -> None:
    with pytest.raises(ConstraintError, match="nothing can satisfy"):
        BACKENDS.compile(ContextFreeGrammar(RuleNode("r"), {"r": SequenceNode((TextNode("a"), RuleNode("r")))}))

"""Both grammar libraries against the pushdown automaton, which reads a grammar character by character."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.constrain.backends import GrammarCompiler, compiler
from mlx_agent_llm.constrain.backends.backends import Backends, MakeCursor
from mlx_agent_llm.constrain.backends.cursor import GrammarCursor, LLGuidanceCursor, XGrammarCursor
from mlx_agent_llm.constrain.backends.deadline import call_within
from mlx_agent_llm.constrain.backends.ebnf import ebnf_text
from mlx_agent_llm.constrain.backends.lark import MAX_LINES, lark_text
from mlx_agent_llm.constrain.backends.lexing import is_read_exactly, is_recursive
from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.constrain.backends.relaxed import relaxed
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.errors import ConstraintError, GenerationError
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.context_free.joined import joined
from mlx_agent_llm.languages.context_free.reduced import reduced
from mlx_agent_llm.languages.regular import (
    ANY_CHAR,
    NOTHING,
    CharSet,
    Language,
    characters,
    complement,
    concat,
    intersection,
    literal,
    repeat,
    union,
)
from mlx_agent_llm.request.constraints import JSONSchema
from tests.support.grammars import is_dead
from tests.support.library_walks import LibraryWalks
from tests.support.search import examples

# Bytes, texts of several bytes that reach over leaves and into characters, and two end tokens.
BYTES = [bytes([byte]) for byte in b"abcdx(),\xc3\xa8\xa9"]
PIECES = [b"aa", b"ab", b"ba", b"bc", b"abc", b"cab", b")a", b"),", b",(", "aé".encode(), b"c\xc3", b"\xa9a"]
TOKENS = [*BYTES, *PIECES, b"", b""]
END = (len(TOKENS) - 2, len(TOKENS) - 1)
WALKS = LibraryWalks(TOKENS)
BACKENDS = Backends(TOKENS, END)

FUZZED = settings(max_examples=examples(120), suppress_health_check=list(HealthCheck))

classes = st.sampled_from(["ab", "bc", "abc", "aé", "c"]).map(lambda chars: characters(CharSet.of(chars)))
words = st.text("abcé", min_size=1, max_size=3)
counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (1, 3), (0, 0)])
languages: st.SearchStrategy[Language] = st.recursive(
    words.map(literal) | classes,
    lambda inner: st.one_of(
        st.builds(union, inner, inner),
        st.builds(concat, inner, inner),
        st.builds(lambda item, count: repeat(item, *count), inner, counts),
        st.builds(lambda one: intersection(one, repeat(ANY_CHAR, 1, 4)), inner),
        st.builds(lambda one: intersection(repeat(characters(CharSet.of("abc")), 0, 4), complement(one)), inner),
    ),
    max_leaves=4,
)


def nodes(leaves: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda parts: SequenceNode(tuple(parts))),
            st.lists(inner, min_size=1, max_size=3).map(lambda options: ChoiceNode(tuple(options))),
            st.builds(lambda item, count: RepeatNode(item, *count), inner, counts),
        ),
        max_leaves=5,
    )


@st.composite
def grammars(draw: st.DrawFn) -> ContextFreeGrammar:
    """Any grammar that is not left-recursive: a rule stands after a text, sometimes before one."""
    names = ["x", "y-1", "Z"][: draw(st.integers(1, 3))]
    after = st.sampled_from([(), (TextNode(")"),), (TextNode("b"),), (TextNode(","), RuleNode(names[-1]))])
    calls = st.builds(
        lambda before, name, after: SequenceNode((TextNode(before), RuleNode(name), *after)),
        st.sampled_from(["(", "a", "ab", ","]),
        st.sampled_from(names),
        after,
    )
    node = nodes(st.one_of(words.map(TextNode), languages.map(PatternNode), calls))
    grammar = ContextFreeGrammar(draw(node | calls), {name: draw(node) for name in names})
    try:
        reduced(grammar)
    except ConstraintError:
        assume(False)  # it holds no text
    return grammar


@FUZZED
@given(grammar=grammars(), seed=st.integers(0, 2**32))
def test_whichever_library_a_grammar_goes_to_reads_it_exactly(grammar: ContextFreeGrammar, seed: int) -> None:
    WALKS.assert_agree(grammar, BACKENDS.compile(grammar), seed)


@FUZZED
@given(grammar=grammars(), with_joined_texts=st.booleans(), seed=st.integers(0, 2**32))
def test_a_lexer_reads_exactly_what_it_is_said_to(
    grammar: ContextFreeGrammar, with_joined_texts: bool, seed: int
) -> None:
    written = joined(reduced(grammar)) if with_joined_texts else reduced(grammar)
    assume(is_read_exactly(written))
    lark = lark_text(written, has_lexemes=True)
    WALKS.assert_agree(grammar, BACKENDS._compile_with_llguidance(lark), seed)


@settings(FUZZED, max_examples=examples(40))
@given(grammar=grammars(), seed=st.integers(0, 2**32))
def test_xgrammar_reads_every_grammar_exactly(grammar: ContextFreeGrammar, seed: int) -> None:
    WALKS.assert_agree(grammar, BACKENDS._compile_with_xgrammar(ebnf_text(reduced(grammar))), seed)


@settings(FUZZED, max_examples=examples(60))
@given(language=languages, count=st.sampled_from([(0, 20), (9, 30), (20, 20)]), seed=st.integers(0, 2**32))
def test_a_relaxed_language_holds_all_that_the_language_holds(
    language: Language, count: tuple[int, int], seed: int
) -> None:
    rng = random.Random(seed)
    exact = concat(literal("b"), repeat(language, *count))
    larger = relaxed(exact)
    for _ in range(60):
        assert larger.is_nullable or not exact.is_nullable
        chars = [chars.example() for chars in exact.next_classes() if exact.derive(chars.example()) is not NOTHING]
        if not chars:
            break
        char = rng.choice(chars)
        exact, larger = exact.derive(char), larger.derive(char)


@pytest.mark.parametrize("name", TOOL_SCHEMAS)
def test_a_tool_schema_is_read_exactly_and_by_llguidance(name: str) -> None:
    tokens = [*(bytes([byte]) for byte in range(0x80)), b'"}', b'", ', b'": ', b', "', b'{"', b"], ", b"12", b""]
    end = len(tokens) - 1
    grammar = constraint_grammar(JSONSchema(TOOL_SCHEMAS[name]))
    pushdown, rng = Pushdown(grammar), random.Random(name)
    one = GrammarCompiler(tokens, len(tokens), {end}, {end: "<end>"}).compile(grammar).matcher()
    assert isinstance(one._cursor, LLGuidanceCursor)
    state = pushdown.start()
    mask = np.zeros((1, (len(tokens) + 31) // 32), np.int32)
    for _ in range(30):
        one.fill_mask(mask, 0)
        allowed = set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")))
        goes_on = {i for i, data in enumerate(tokens) if data and not is_dead(pushdown.advance(state, data))}
        assert allowed == goes_on | ({end} if state.is_complete else set())
        if not goes_on:
            break
        closing = [i for i in goes_on if set(tokens[i]) <= set(b'"}],:{ 0123456789')]
        chosen = rng.choice(sorted(closing if closing and rng.random() < 0.5 else goes_on))
        assert one.accept(chosen)
        state = pushdown.advance(state, tokens[chosen])


LETTER = PatternNode(characters(CharSet.span("a", "b")))
WORD = PatternNode(repeat(characters(CharSet.span("a", "b")), 1, 30))
NESTED = ContextFreeGrammar(
    RuleNode("n"), {"n": ChoiceNode((WORD, SequenceNode((TextNode("("), RuleNode("n"), TextNode(")")))))}
)
# A word and a text that begins with the same letters and what follows the word: no lexer can tell them apart.
CLASHING = ContextFreeGrammar(
    RuleNode("n"),
    {
        "n": ChoiceNode(
            (
                SequenceNode((TextNode("a"), TextNode("b"), RuleNode("n"), TextNode(")"))),
                SequenceNode((TextNode("ab"), TextNode("c"))),
                TextNode("x"),
            )
        )
    },
)


@pytest.mark.parametrize(
    ("grammar", "kind"),
    [
        (ContextFreeGrammar(SequenceNode((TextNode("a"), WORD))), LLGuidanceCursor),
        (NESTED, LLGuidanceCursor),
        (CLASHING, XGrammarCursor),
        (
            ContextFreeGrammar(
                RuleNode("r"), {"r": ChoiceNode((TextNode("x"), SequenceNode((LETTER, TextNode("),"), RuleNode("r")))))}
            ),
            LLGuidanceCursor,
        ),
    ],
)
def test_a_grammar_goes_to_xgrammar_only_when_a_lexer_cannot_read_it(
    grammar: ContextFreeGrammar, kind: type[GrammarCursor]
) -> None:
    assert type(BACKENDS.compile(grammar)()) is kind


def test_without_xgrammar_such_a_grammar_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(ConstraintError, match=r"pip install 'mlx-agent-llm\[xgrammar\]'"):
        BACKENDS.compile(CLASHING)
    assert type(BACKENDS.compile(NESTED)()) is LLGuidanceCursor


def test_texts_are_joined_where_that_lets_a_lexer_tell_them_apart() -> None:
    calls = ChoiceNode(
        (
            SequenceNode((TextNode("ab("), RuleNode("n"), TextNode(")"))),
            SequenceNode((TextNode("ba("), RuleNode("n"), TextNode(")"))),
        )
    )
    begins_a_call = concat(literal("("), union(literal("ab("), literal("ba(")), repeat(ANY_CHAR, 0))
    free_text = PatternNode(complement(begins_a_call))
    reply = ContextFreeGrammar(
        ChoiceNode((free_text, SequenceNode((TextNode("("), RuleNode("c"), TextNode(")"))))),
        {**NESTED.rules, "c": calls},
    )
    assert not is_read_exactly(reduced(reply))
    assert is_read_exactly(joined(reduced(reply)))
    make_cursor = BACKENDS.compile(reply)
    assert isinstance(make_cursor(), LLGuidanceCursor)
    for seed in range(20):
        WALKS.assert_agree(reply, make_cursor, seed)


def test_a_rule_that_only_goes_on_with_itself_is_no_recursion() -> None:
    items = ContextFreeGrammar(
        RuleNode("r"), {"r": ChoiceNode((TextNode("x"), SequenceNode((LETTER, TextNode(","), RuleNode("r")))))}
    )
    assert is_recursive(items) and not is_recursive(reduced(items))
    assert is_recursive(reduced(NESTED))


def test_what_cannot_be_finished_is_never_begun() -> None:
    dead_end = SequenceNode((TextNode("a"), RuleNode("endless")))
    grammar = ContextFreeGrammar(
        ChoiceNode((dead_end, TextNode("b"))),
        {"endless": SequenceNode((TextNode("a"), RuleNode("endless"), TextNode("b")))},
    )
    one = WALKS.matcher(BACKENDS.compile(grammar))
    assert WALKS.next_tokens(one) == {TOKENS.index(b"b")}
    with pytest.raises(ConstraintError, match="no finite text"):
        BACKENDS.compile(ContextFreeGrammar(dead_end, grammar.rules))


@pytest.fixture(params=[NESTED, CLASHING], ids=["llguidance", "xgrammar"])
def start(request: pytest.FixtureRequest) -> GrammarMatcher:
    return WALKS.matcher(BACKENDS.compile(request.param))


def token(data: bytes) -> int:
    return TOKENS.index(data)


def test_a_matcher_takes_tokens_back_the_end_token_too(start: GrammarMatcher) -> None:
    before = WALKS.next_tokens(start)
    whole = [b"(", b"ab", b")"] if token(b"(") in before else [b"ab", b"x", b")"]
    assert all(start.accept(token(data)) for data in whole)
    assert start._cursor.is_complete and start.is_finished
    assert start.accept(END[1]) and start.is_finished and not start.accept(END[0])
    start.rollback(1)
    assert start._cursor.is_complete and WALKS.next_tokens(start) == set(END)
    start.rollback(len(whole))
    assert not start._cursor.is_complete and WALKS.next_tokens(start) == before


def test_a_matcher_that_refused_a_token_stands_where_it_stood(start: GrammarMatcher) -> None:
    before = WALKS.next_tokens(start)
    for refused in set(range(len(TOKENS))) - before:
        assert not start.accept(refused)
    assert WALKS.next_tokens(start) == before


@pytest.mark.parametrize("compile_with", ["llguidance", "xgrammar"])
def test_what_is_forced_is_told_as_bytes_up_to_where_there_is_a_choice(compile_with: str) -> None:
    grammar = ContextFreeGrammar(
        SequenceNode((TextNode("abé"), PatternNode(characters(CharSet.of("éè"))), TextNode("c")))
    )
    makers: dict[str, Callable[[], MakeCursor]] = {
        "llguidance": lambda: BACKENDS._compile_with_llguidance(lark_text(grammar, has_lexemes=False)),
        "xgrammar": lambda: BACKENDS._compile_with_xgrammar(ebnf_text(grammar)),
    }
    one = WALKS.matcher(makers[compile_with]())
    assert one.jump_forward() == "abé".encode() + b"\xc3"
    for data in (b"ab", b"\xc3"):
        assert one.accept(token(data))
    assert one.jump_forward() == b"\xa9\xc3"  # from within a character
    for data in (b"\xa9", b"\xc3"):
        assert one.accept(token(data))
    assert one.jump_forward() == b""
    assert one.accept(token(b"\xa9")) and one.jump_forward() == b"c"
    assert one.accept(token(b"c")) and one.jump_forward() == b"" and one.is_finished


def marker_compiler() -> GrammarCompiler:
    tokens = [bytes([byte]) for byte in range(256)] + [b"", b"", b""]
    return GrammarCompiler(tokens, len(tokens), {258}, {256: "<call>", 257: "<other>", 258: "<end>"})


def test_a_control_token_is_allowed_where_the_grammar_names_it_as_a_marker_and_nowhere_else() -> None:
    body = SequenceNode((PatternNode(repeat(ANY_CHAR, 0, 3)), TextNode("<call>")))
    marked, plain = ContextFreeGrammar(body, {}, frozenset(["<call>"])), ContextFreeGrammar(body)
    one, other = marker_compiler().compile(marked).matcher(), marker_compiler().compile(plain).matcher()
    mask = np.zeros((2, 9), np.int32)
    one.fill_mask(mask, 0)
    other.fill_mask(mask, 1)
    allowed = [set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))) for row in mask]
    assert allowed[0] - allowed[1] == {256}
    assert not {257, 258} & allowed[0]
    assert not other.accept(256) and one.accept(256)
    assert one._cursor.is_complete and one.is_finished
    for byte in b"<call>":  # the same text, spelled out
        assert other.accept(byte)
    assert other.is_finished


def test_a_compilation_that_takes_too_long_is_an_error_that_names_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    letters = GrammarCompiler([b"a", b""], 2, {1}, {1: "<end>"})
    monkeypatch.setattr(compiler, "COMPILE_TIMEOUT", 0.05)
    monkeypatch.setattr(letters._backends, "compile", lambda grammar, backend: go_on.wait(10))
    try:
        with pytest.raises(ConstraintError, match=r"within 0\.05 s"):
            letters.compile(ContextFreeGrammar(TextNode("a")))
    finally:
        go_on.set()
    assert call_within(10, lambda: "done") == "done"
    with pytest.raises(ZeroDivisionError):
        call_within(10, lambda: 1 // 0)


def test_rules_may_be_nested_ten_thousand_deep() -> None:
    names = [f"n{i}" for i in range(10_000)]
    rules: dict[str, Node] = {
        name: ChoiceNode((SequenceNode((TextNode("a"), RuleNode(after))), TextNode("b")))
        for name, after in pairwise(names)
    }
    grammar = ContextFreeGrammar(RuleNode(names[0]), {**rules, names[-1]: TextNode("c")})
    one = marker_compiler().compile(grammar).matcher()
    assert all(one.accept(byte) for byte in b"aaaab") and one.is_finished


def test_a_grammar_that_is_nested_or_large_beyond_that_is_refused() -> None:
    node: Node = TextNode("a")
    for _ in range(2000):
        node = SequenceNode((TextNode("a"), ChoiceNode((node, TextNode("b")))))
    with pytest.raises(ConstraintError, match="nested too deeply"):
        marker_compiler().compile(ContextFreeGrammar(node))
    names = [f"n{i}" for i in range(MAX_LINES + 1)]
    rules: dict[str, Node] = {name: SequenceNode((TextNode("a"), RuleNode(after))) for name, after in pairwise(names)}
    large = ContextFreeGrammar(RuleNode(names[0]), {**rules, names[-1]: TextNode("c")})
    with pytest.raises(ConstraintError, match=f"{MAX_LINES} is the most"):
        lark_text(large, has_lexemes=False)


def test_a_pattern_that_is_too_hard_for_the_lexer_is_a_fault_and_not_the_end_of_the_text() -> None:
    grammar = ContextFreeGrammar(WORD)
    one = WALKS.matcher(BACKENDS.compile(grammar))
    assert one.accept(token(b"ab")) and one._cursor.is_complete
    assert isinstance(one._cursor, LLGuidanceCursor)
    assert not one._cursor._matcher.consume_token(token(b"x"))  # poisons llguidance's matcher
    with pytest.raises(GenerationError, match="llguidance"):
        WALKS.next_tokens(one)
    with pytest.raises(GenerationError, match="llguidance"):
        one.accept(token(b"a"))

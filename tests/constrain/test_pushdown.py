"""The pushdown against every short text of random grammars, found by the definition."""

import itertools
import json
import math
import random

import pytest

from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages import regular
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.context_free.shortest import ShortestTexts
from tests.support.grammars import JSON, STRING, is_dead, random_node, texts_of

ALPHABET = "ab€"
LONGEST = 5


def random_grammars(count: int) -> list[ContextFreeGrammar]:
    """Those of `count` random ones that are not left-recursive and hold a text."""
    grammars = []
    for seed in range(count):
        rng = random.Random(seed)
        grammar = ContextFreeGrammar(random_node(rng, 3), {"r0": random_node(rng, 2), "r1": random_node(rng, 2)})
        try:
            Pushdown(grammar)
        except ConstraintError:
            continue
        grammars.append(grammar)
    return grammars


@pytest.fixture(scope="module")
def grammars() -> list[ContextFreeGrammar]:
    found = random_grammars(300)
    assert len(found) > 150
    return found


def test_exactly_the_texts_of_a_grammar_are_accepted(grammars: list[ContextFreeGrammar]) -> None:
    everything = ["".join(text) for length in range(LONGEST + 1) for text in itertools.product(ALPHABET, repeat=length)]
    num_texts = 0
    for grammar in grammars:
        pushdown, held = Pushdown(grammar), texts_of(grammar, ALPHABET, LONGEST)
        assert {text for text in everything if pushdown.accepts(text)} == held, grammar
        num_texts += len(held)
    assert num_texts > 1000


def test_the_shortest_text_has_the_fewest_bytes_of_all(grammars: list[ContextFreeGrammar]) -> None:
    for grammar in grammars:
        shortest = ShortestTexts(grammar)
        text = shortest.write(grammar.root)
        assert len(text.encode()) == shortest.cost(grammar.root) and Pushdown(grammar).accepts(text)
        held = texts_of(grammar, ALPHABET, LONGEST)
        assert len(text.encode()) <= min((len(one.encode()) for one in held), default=math.inf)


def test_a_state_is_dead_exactly_when_no_text_begins_like_this(grammars: list[ContextFreeGrammar]) -> None:
    for grammar in grammars:
        pushdown, held = Pushdown(grammar), texts_of(grammar, ALPHABET, LONGEST)
        for text in held:
            for end in range(len(text) + 1):
                assert not is_dead(pushdown.advance(pushdown.start(), text[:end].encode()))


def test_however_a_text_is_cut_into_bytes_it_leads_to_the_same_state(grammars: list[ContextFreeGrammar]) -> None:
    rng = random.Random(0)
    for grammar in grammars[:100]:
        pushdown = Pushdown(grammar)
        for text in sorted(texts_of(grammar, ALPHABET, LONGEST))[:20]:
            data, start = text.encode(), pushdown.start()
            whole, state = pushdown.advance(start, data), start
            cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
            for begin, end in itertools.pairwise([0, *cuts, len(data)]):
                before = state
                state = pushdown.advance(state, data[begin:end])
                assert pushdown.advance(before, data[begin:end]) == state, "a state stays valid"
            assert state == whole and whole.is_complete


@pytest.mark.parametrize("value", [1, 'a"\\€😀', [], {}, [1, [2, {"a": [True, None]}]], {"x": {}, "": [[[]]]}])
def test_json_is_read(value: object) -> None:
    assert Pushdown(JSON).accepts(json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize("text", ["", "[", "[1,2]", "tru", "01", '{"a":1}', '"a', '"\ud800"', "[1, ]", "[]]"])
def test_what_is_no_json_in_this_form_is_not(text: str) -> None:
    assert not Pushdown(JSON).accepts(text)


def test_bytes_that_are_no_text_lead_nowhere() -> None:
    pushdown = Pushdown(ContextFreeGrammar(STRING))
    assert is_dead(pushdown.advance(pushdown.start(), b'"\xff'))
    assert is_dead(pushdown.advance(pushdown.start(), b'"\xed\xa0')), "a surrogate"
    assert not is_dead(pushdown.advance(pushdown.start(), b'"\xed\x9f'))


@pytest.mark.parametrize(
    "rules",
    [
        {"r": ChoiceNode((TextNode("x"), SequenceNode((RuleNode("r"), TextNode("y")))))},
        {"r": RuleNode("s"), "s": ChoiceNode((TextNode("x"), RuleNode("r")))},
        {
            "r": SequenceNode((RepeatNode(TextNode("a"), 0, 1), RuleNode("s"))),
            "s": ChoiceNode((TextNode("x"), SequenceNode((TextNode(""), RuleNode("r"))))),
        },
        {
            "r": ChoiceNode(
                (TextNode("x"), SequenceNode((PatternNode(regular.empty_text()), RuleNode("r"), TextNode("x"))))
            )
        },
    ],
)
def test_left_recursion_is_refused_by_the_rules_name(rules: dict[str, object]) -> None:
    with pytest.raises(ConstraintError, match=r"rule '[rs]' is left-recursive"):
        Pushdown(ContextFreeGrammar(RuleNode("r"), rules))  # type: ignore[arg-type]


def test_a_grammar_without_a_finite_text_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no finite text"):
        Pushdown(ContextFreeGrammar(RuleNode("r"), {"r": SequenceNode((TextNode("x"), RuleNode("r")))}))


def test_a_grammar_that_reads_a_text_in_ever_more_ways_is_given_up() -> None:
    grammar = ContextFreeGrammar(
        RuleNode("s"), {"s": ChoiceNode((TextNode("a"), SequenceNode((TextNode("a"), RuleNode("s"), RuleNode("s")))))}
    )
    pushdown = Pushdown(grammar)
    assert pushdown.accepts("aaaaa")
    ambiguous = ChoiceNode(tuple(SequenceNode((TextNode("a"), RuleNode("s"), TextNode(str(n)))) for n in range(3)))
    pushdown = Pushdown(ContextFreeGrammar(RuleNode("s"), {"s": ChoiceNode((TextNode("a"), ambiguous))}))
    with pytest.raises(ConstraintError, match="too ambiguous"):
        pushdown.accepts("a" * 12)


def test_right_recursion_and_long_texts_need_no_depth() -> None:
    assert Pushdown(JSON).accepts("[" + ", ".join(["1"] * 5000) + "]")
    assert Pushdown(JSON).accepts("[" * 3000 + "]" * 3000)

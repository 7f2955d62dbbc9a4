"""Completing texts within a budget: closings are texts of the grammar, and a budget that fits is never broken."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.constrain.closing.close_in_time import CloseInTime
from mlx_agent_llm.constrain.closing.closing import Closing, characters_beginning_with
from mlx_agent_llm.constrain.closing.pushdown import Pushdown, State
from mlx_agent_llm.constrain.closing.reserve import _most_bytes_of_derivatives, most_bytes_to_close
from mlx_agent_llm.constrain.closing.spelling import Spelling
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
from mlx_agent_llm.languages.regular.char_set import CharSet
from tests.support.grammars import JSON, NUMBER, PERSON, random_node
from tests.support.search import examples

SINGLE = [bytes([byte]) for byte in range(256)]
MERGED = [
    *SINGLE,
    b'{"',
    b'": ',
    b'", "',
    b"name",
    b'{"name',
    b"age",
    b'"}',
    b"}}",
    b'"}}',
    b"]]",
    b"ab",
    b"bb",
    b"\x82\xac",
]
VOCABULARIES = {"bytes": SINGLE, "merged": MERGED}
EXTRACT = ContextFreeGrammar(PERSON.root, {})


def spelling_of(tokens: Sequence[bytes], markers: Sequence[str] = ()) -> Spelling:
    return Spelling(tokens, {len(tokens) + index: text for index, text in enumerate(markers)}, ())


def random_grammars(count: int) -> list[ContextFreeGrammar]:
    found = []
    for seed in itertools.count():
        rng = random.Random(seed)
        grammar = ContextFreeGrammar(random_node(rng, 3), {"r0": random_node(rng, 2), "r1": random_node(rng, 2)})
        try:
            Pushdown(grammar)
        except ConstraintError:
            continue
        found.append(grammar)
        if len(found) == count:
            return found
    raise AssertionError


GRAMMARS = [JSON, PERSON, *random_grammars(60)]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_random_walk_within_its_budget_always_ends_as_a_whole_text(vocabulary: str) -> None:
    tokens = VOCABULARIES[vocabulary]
    spelling = spelling_of(tokens)
    num_closed = 0
    for seed, grammar in enumerate(GRAMMARS * 4):
        rng, pushdown = random.Random(seed), Pushdown(grammar)
        closing = Closing(grammar, spelling)
        num_left = closing.minimum + rng.choice([0, 1, 2, 5, 20, 80])
        budget, state, written = CloseInTime(closing), pushdown.start(), b""
        while num_left:
            choices = [t for t, data in enumerate(tokens) if _leads_on(closing, pushdown.advance(state, data))]
            if not choices:
                break
            token_id = rng.choice(choices)
            if not budget.take(token_id, num_left - 1):
                closing_tokens = budget.closing_tokens()
                assert len(closing_tokens) <= num_left
                written += b"".join(tokens[token_id] for token_id in closing_tokens)
                num_closed += 1
                break
            state, num_left = pushdown.advance(state, tokens[token_id]), num_left - 1
            written += tokens[token_id]
        assert pushdown.accepts(written.decode()), (grammar, written)
    assert num_closed > 30


def _leads_on(closing: Closing, state: object) -> bool:
    return closing.cost(state) < float("inf")  # type: ignore[arg-type]


def test_no_state_on_a_walk_costs_more_than_the_reserve() -> None:
    spelling, num_bounded = spelling_of(MERGED), 0
    for seed, grammar in enumerate(GRAMMARS):
        closing = Closing(grammar, spelling)
        if closing.reserve == float("inf"):
            continue
        num_bounded += 1
        rng = random.Random(seed)
        for _ in range(3):
            state = closing.start()
            for _ in range(40):
                after = [
                    closing.advance(state, data) for data in [*rng.sample(MERGED, 40), b"a", b"b", b"\xe2", b'"', b"1"]
                ]
                ways = [one for one in after if _leads_on(closing, one)]
                if not ways:
                    break
                state = max(ways, key=closing.cost) if rng.random() < 0.7 else rng.choice(ways)
                assert closing.cost(state) <= closing.reserve, grammar
    assert num_bounded > 20


def test_the_reserve_is_infinite_only_where_nesting_sets_no_bound() -> None:
    spelling = spelling_of(SINGLE)
    assert Closing(JSON, spelling).reserve == float("inf")
    assert Closing(PERSON, spelling).reserve < 100
    endless = ContextFreeGrammar(
        RuleNode("items"),
        {"items": ChoiceNode((TextNode("]"), SequenceNode((NUMBER, TextNode(","), RuleNode("items")))))},
    )
    assert Closing(endless, spelling).reserve < 20


def test_a_budget_reads_nothing_far_from_its_end_and_little_at_once_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closing = Closing(PERSON, spelling_of(SINGLE))
    budget, text = CloseInTime(closing), b'{"name": "' + b"x" * 3000
    num_read, advance = [], Pushdown.advance

    def count(self: Pushdown, state: State, data: bytes) -> State:
        num_read.append(len(data))
        return advance(self, state, data)

    with monkeypatch.context() as patch:
        patch.setattr(Pushdown, "advance", count)
        num_left = 3010 + int(closing.reserve)
        for token_id in text:
            num_left -= 1
            assert budget.take(token_id, num_left)
            assert not num_read or num_left < closing.reserve + 20
    assert 2000 < sum(num_read) <= 3010 and max(num_read) == 256
    assert bytes(budget.closing_tokens()) == b'", "age": 0, "address": {"street": "", "town": ""}}'


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"", b"0"),
        (b"[", b"]"),
        (b'[{"', b'": 0}]'),
        (b'{"a', b'": 0}'),
        (b'[1, "x\\', b'""]'),
        (b'"' + "€".encode()[:1], None),
        ('["€'.encode()[:-1], None),
        (b"[[12", b"]]"),
        (b"t", b"rue"),
    ],
)
def test_a_text_is_closed_by_the_fewest_tokens(written: bytes, expected: bytes | None) -> None:
    closing = Closing(JSON, spelling_of(SINGLE))
    closed = bytes(closing.closing_tokens(closing.advance(closing.start(), written)))
    assert Pushdown(JSON).accepts((written + closed).decode())
    if expected is not None:
        assert len(closed) == len(expected)


def test_tokens_that_reach_over_the_borders_of_parts_are_used_for_an_exact_count() -> None:
    closing = Closing(PERSON, spelling_of(MERGED))
    state = closing.advance(closing.start(), b'{"name": "x", "age": 1, "address": {"street": "", "town": "')
    assert [MERGED[token] for token in closing.closing_tokens(state)] == [b'"}}']
    assert closing.cost(state) > 1 and closing.fits(state, 1)


def test_a_marker_is_closed_with_its_control_token_where_the_grammar_names_it() -> None:
    root = SequenceNode((TextNode("<call>"), NUMBER, TextNode("</call>")))
    spelling = spelling_of(SINGLE, ["<call>", "</call>", "<other>"])
    with_markers = Closing(ContextFreeGrammar(root, markers=frozenset(["<call>", "</call>"])), spelling)
    assert with_markers.closing_tokens(with_markers.start()) == [256, ord("0"), 257]
    assert Closing(ContextFreeGrammar(root), spelling).minimum == 14


def test_a_vocabulary_without_the_bytes_is_refused() -> None:
    with pytest.raises(ConstraintError, match="the vocabulary has no tokens"):
        Closing(ContextFreeGrammar(TextNode("x€")), spelling_of([b"x", b"y"]))
    assert (
        Closing(ContextFreeGrammar(ChoiceNode((TextNode("x€"), TextNode("xyx")))), spelling_of([b"x", b"y"])).minimum
        == 3
    )


def test_a_counted_repetition_is_closed_with_what_it_still_needs() -> None:
    grammar = ContextFreeGrammar(SequenceNode((TextNode("["), RepeatNode(TextNode("ab"), 3, 5), TextNode("]"))))
    closing = Closing(grammar, spelling_of(SINGLE))
    for written, cost in (("", 8), ("[ab", 5), ("[aba", 4), ("[ababab", 1), ("[abababab", 1), ("[ababababab]", 0)):
        assert closing.cost(closing.advance(closing.start(), written.encode())) == cost


@settings(max_examples=examples(300))
@given(st.characters(exclude_categories=["Cs"]), st.integers(1, 3))
def test_a_beginning_of_a_character_stands_for_all_characters_that_begin_so(char: str, size: int) -> None:
    beginning = char.encode()[:size]
    if len(beginning) == len(char.encode()):
        return
    ranges = characters_beginning_with(beginning).ranges
    assert char in characters_beginning_with(beginning)
    for low, high in ranges:
        assert chr(low).encode().startswith(beginning) and chr(high).encode().startswith(beginning)
        assert low == 0 or low == 0xE000 or not chr(low - 1).encode().startswith(beginning)


@settings(max_examples=examples(300))
@given(st.lists(st.sampled_from([b"a", b"b", b"ab", b"ba", b"abc", b"c", b"bca"]), max_size=8))
def test_the_fewest_tokens_are_never_more_than_any_spelling(pieces: list[bytes]) -> None:
    tokens = [b"a", b"b", b"ab", b"ba", b"abc", b"c", b"bca"]
    spelling, data = spelling_of(tokens), b"".join(pieces)
    token_ids = spelling.fewest_tokens(data, ())
    assert b"".join(tokens[token_id] for token_id in token_ids) == data
    assert len(token_ids) <= len(pieces)
    assert spelling.counts(data, ())[0] == len(token_ids)


def test_whether_a_longer_token_begins_like_this() -> None:
    spelling = spelling_of([b" ", b' "', b"ab", b"abc", b"b"])
    assert [spelling.has_longer(data) for data in (b" ", b' "', b"a", b"ab", b"abc", b"b", b"x")] == [
        True, False, True, True, False, False, False,
    ]  # fmt: skip


def random_language(rng: random.Random, depth: int) -> regular.Language:
    """Without intersection and complement."""
    parts = [random_language(rng, depth - 1) for _ in range(rng.randrange(1, 4))] if depth else []
    match rng.choice(["literal", "characters", "concat", "union", "repeat"][: 5 if depth else 2]):
        case "literal":
            return regular.literal("".join(rng.choices("ab€", k=rng.randrange(4))))
        case "characters":
            return regular.characters(CharSet.of(rng.choice(["a", "b€", "€", "ab"])))
        case "concat":
            return regular.concat(*parts)
        case "union":
            return regular.union(*parts)
    least = rng.randrange(4)
    return regular.repeat(parts[0], least, rng.choice([None, least, least + 3]))


def test_the_structure_of_a_pattern_bounds_what_any_of_its_derivatives_needs() -> None:
    num_exact = 0
    for seed in range(400):
        language = random_language(random.Random(seed), 3)
        bound, exact = most_bytes_to_close(language), _most_bytes_of_derivatives(language)
        assert exact <= bound or exact == float("inf")
        num_exact += exact == bound
    assert num_exact > 200


def test_derivatives_are_looked_at_where_the_structure_says_nothing() -> None:
    letters = regular.characters(CharSet.span("a", "z"))
    long_words = regular.intersection(regular.repeat(letters, 5, None), regular.complement(regular.literal("stone")))
    assert most_bytes_to_close(long_words) == 5
    counted = regular.intersection(regular.repeat(letters, 0, 5000), regular.complement(regular.literal("stone")))
    assert most_bytes_to_close(counted) == float("inf")


def test_a_long_pattern_is_closed_with_what_it_still_needs() -> None:
    letters = regular.characters(CharSet.span("a", "z"))
    grammar = ContextFreeGrammar(PatternNode(regular.concat(regular.repeat(letters, 2000, 3000), regular.literal("."))))
    closing = Closing(grammar, spelling_of(SINGLE))
    assert 2001 <= closing.reserve <= 2004 and closing.minimum == 2001
    state = closing.advance(closing.start(), b"x" * 1998)
    assert closing.fits(state, 3) and not closing.fits(state, 2)

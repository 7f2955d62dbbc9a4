"""Regular languages against sets of texts, character sets against sets of characters."""

import copy
import gc
import itertools
import pickle
import threading
import weakref
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regular import (
    ANY_TEXT,
    EMPTY_TEXT,
    NOTHING,
    Intersection,
    Language,
    Literal,
    Union,
    are_disjoint,
    characters,
    cheapest,
    complement,
    concat,
    empty_text,
    first_match,
    intersection,
    least_number_of_texts,
    literal,
    nothing,
    repeat,
    some_texts,
    union,
    without,
)
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet, coarsest_partition
from tests.support.languages import accepts, is_subset
from tests.support.search import examples

# No leaf below names "z": it stands for every character that is not named.
ALPHABET = "abcz"
LONGEST = 4
UNIVERSE = ["".join(letters) for length in range(LONGEST + 1) for letters in itertools.product(ALPHABET, repeat=length)]


class Model(NamedTuple):
    """A language, and which texts of the universe it should hold."""

    language: Language
    texts: frozenset[str]


def model_concat(left: Model, right: Model) -> Model:
    texts = (one + other for one in left.texts for other in right.texts if len(one) + len(other) <= LONGEST)
    return Model(concat(left.language, right.language), frozenset(texts))


def model_repeat(item: Model, least: int, most: int | None) -> Model:
    power, texts = frozenset([""]), frozenset([""] if least == 0 else [])
    for count in range(1, (least + LONGEST if most is None else most) + 1):
        power = model_concat(Model(NOTHING, power), item).texts
        texts |= power if count >= least else frozenset()
    return Model(repeat(item.language, least, most), texts)


LEAVES = [
    *(Model(literal(text), frozenset([text])) for text in ("", "a", "b", "ab", "abc", "aa")),
    *(Model(characters(CharSet.of(chars)), frozenset(chars)) for chars in ("ab", "bc", "abc")),
    Model(characters(~CharSet.of("a")), frozenset("bcz")),
    Model(characters(ANY_CHARACTER), frozenset(ALPHABET)),
    Model(nothing(), frozenset()),
    Model(ANY_TEXT, frozenset(UNIVERSE)),
]
COUNTS = st.sampled_from([(0, None), (1, None), (0, 1), (1, 1), (0, 3), (2, 2), (1, 3), (2, None), (3, 4)])


def model_union(left: Model, right: Model) -> Model:
    return Model(union(left.language, right.language), left.texts | right.texts)


def composed(models: st.SearchStrategy[Model]) -> st.SearchStrategy[Model]:
    pairs = st.tuples(models, models)
    return st.one_of(
        pairs.map(lambda pair: model_concat(*pair)),
        pairs.map(lambda pair: model_union(*pair)),
        pairs.map(lambda pair: Model(intersection(pair[0].language, pair[1].language), pair[0].texts & pair[1].texts)),
        models.map(lambda one: Model(complement(one.language), frozenset(UNIVERSE) - one.texts)),
        st.tuples(models, COUNTS).map(lambda pair: model_repeat(pair[0], *pair[1])),
        st.tuples(models, COUNTS, COUNTS).map(
            lambda parts: model_union(model_repeat(parts[0], *parts[1]), model_repeat(parts[0], *parts[2]))
        ),
    )


MODELS = st.recursive(st.sampled_from(LEAVES), composed, max_leaves=8)
LANGUAGES = MODELS.map(lambda model: model.language)


def texts_of(language: Language) -> frozenset[str]:
    """The texts of the universe that a language holds, by one derivative a text."""
    held, after = set(), {"": language}
    for text in UNIVERSE:
        if text:
            after[text] = after[text[:-1]].derive(text[-1])
        held |= {text} if after[text].is_nullable else set()
    return frozenset(held)


@settings(max_examples=examples(400))
@given(MODELS)
def test_a_language_holds_the_texts_that_its_construction_says(model: Model) -> None:
    assert texts_of(model.language) == model.texts


@settings(max_examples=examples(200))
@given(MODELS)
def test_the_shortest_text_is_shortest(model: Model) -> None:
    shortest = model.language.shortest()
    if model.texts:
        assert shortest is not None and len(shortest) == min(map(len, model.texts))
        assert model.language.matches(shortest)
    else:
        assert shortest is None or len(shortest) > LONGEST
    assert model.language.is_empty() == (shortest is None)
    language = model.language
    for index, char in enumerate(shortest or ""):
        language = language.derive(char)
        rest = language.shortest()
        assert rest is not None and language.matches(rest) and len(rest) == len(shortest or "") - index - 1


@settings(max_examples=examples(100))
@given(LANGUAGES)
def test_a_language_has_as_many_texts_as_its_lower_bound(language: Language) -> None:
    texts = some_texts(language, 64)
    assert len(texts) == 64 or least_number_of_texts(language) <= len(texts)


def test_counted_characters_are_known_to_have_many_texts() -> None:
    digit = characters(CharSet.of("0123456789"))
    assert least_number_of_texts(concat(literal("-"), digit, repeat(digit, 0, 5), literal("]"))) == 10**6
    assert least_number_of_texts(repeat(union(literal("ab"), literal("c")), 0, 5)) == 1
    assert least_number_of_texts(repeat(digit, 0)) > 10**9


@settings(max_examples=examples(200))
@given(MODELS)
def test_an_automaton_accepts_the_same_texts_and_has_no_dead_state(model: Model) -> None:
    automaton = model.language.automaton(200)
    assert automaton is not None
    assert {text for text in UNIVERSE if accepts(automaton, text)} == model.texts
    assert (0 in automaton.accepting) == model.language.is_nullable
    live = set(automaton.accepting)
    for _ in automaton.transitions:
        live |= {state for state, row in enumerate(automaton.transitions) if any(to in live for _, to in row)}
    assert live | {0} == set(range(len(automaton.transitions)))
    for row in automaton.transitions:
        assert sum(len(chars) for chars, _ in row) == len(CharSet(span for chars, _ in row for span in chars.ranges))


def test_equal_states_of_an_automaton_are_merged() -> None:
    language = repeat(union(literal("ab"), literal("abab")), 0)
    automaton = language.automaton(2)
    assert automaton is not None and len(automaton.transitions) == 2
    assert accepts(automaton, "abab") and accepts(automaton, "") and not accepts(automaton, "a")
    assert language.automaton(1) is None


@settings(max_examples=examples(200))
@given(LANGUAGES)
def test_the_next_classes_divide_all_characters_and_tell_derivatives_apart(language: Language) -> None:
    classes = language.next_classes()
    assert sum(map(len, classes)) == len(ANY_CHARACTER)
    assert CharSet(span for chars in classes for span in chars.ranges) == ANY_CHARACTER
    for chars in classes:
        ends = {chr(chars.ranges[0][0]), chr(chars.ranges[-1][1]), chars.example()}
        assert len({language.derive(char) for char in ends}) == 1


@settings(max_examples=examples(200))
@given(LANGUAGES, LANGUAGES)
def test_the_laws_of_a_boolean_algebra_hold(one: Language, other: Language) -> None:
    assert complement(complement(one)) is one
    assert intersection(one, complement(one)).is_empty()
    assert complement(union(one, complement(one))).is_empty()
    assert are_equal(complement(union(one, other)), intersection(complement(one), complement(other)))
    assert are_equal(union(one, intersection(one, other)), one)
    assert union(one, other) is union(other, one) and intersection(one, other) is intersection(other, one)


def are_equal(one: Language, other: Language) -> bool:
    return is_subset(one, other) and is_subset(other, one)


@settings(max_examples=examples(200))
@given(MODELS, MODELS)
def test_subsets_and_disjoint_languages_are_told(one: Model, other: Model) -> None:
    if is_subset(one.language, other.language):
        assert one.texts <= other.texts
    else:
        difference = intersection(one.language, complement(other.language)).shortest()
        assert difference is not None and one.language.matches(difference) and not other.language.matches(difference)
    if are_disjoint(one.language, other.language):
        assert not one.texts & other.texts
    else:
        common = intersection(one.language, other.language).shortest()
        assert common is not None and one.language.matches(common) and other.language.matches(common)


@settings(max_examples=examples(200))
@given(MODELS)
def test_the_image_under_a_code_holds_the_coded_texts_and_no_others(model: Model) -> None:
    codes = {"a": r"\a", "b": "b", "c": "cc", "z": r"\u"}

    def encode(char_set: CharSet) -> Language:
        named = [literal(codes[char]) for char in "abc" if char in char_set]
        return union(*named, literal(r"\u") if "z" in char_set else NOTHING)

    image = model.language.substitute(encode)
    assert {text for text in UNIVERSE if image.matches("".join(codes[char] for char in text))} == model.texts
    assert not any(image.matches(text) for text in ("\\", "a", "c", "ccc", r"\b", "z"))


@settings(max_examples=examples(400))
@given(LANGUAGES, LANGUAGES)
def test_a_union_or_intersection_of_the_parts_of_a_normal_form_is_that_normal_form(
    left: Language, right: Language
) -> None:
    for one in (union(left, right), intersection(left, right), left.derive("a"), complement(left)):
        parts = one.children if isinstance(one, Union) else (one,)
        assert union(*parts) is union(one, NOTHING) is union(one, one) is union(*reversed(parts)) is one
        parts = one.children if isinstance(one, Intersection) else (one,)
        assert intersection(*parts) is intersection(one, ANY_TEXT) is intersection(*reversed(parts)) is one


@settings(max_examples=examples(400))
@given(LANGUAGES, LANGUAGES, st.sampled_from(ALPHABET))
@example(union(EMPTY_TEXT, literal("a"), complement(EMPTY_TEXT)), EMPTY_TEXT, "a")
def test_a_language_of_equal_structure_is_the_same_object(one: Language, other: Language, char: str) -> None:
    assert concat(one, other) is concat(one, other)
    assert repeat(one, 2, 5) is repeat(one, 2, 5)
    assert one.derive(char) is one.derive(char)
    assert concat(one, EMPTY_TEXT, empty_text()) is one and union(one, NOTHING) is one
    assert concat(one, NOTHING) is NOTHING and intersection(one, ANY_TEXT) is one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (repeat(repeat(literal("ab"), 0), 0), repeat(literal("ab"), 0)),
        (union(EMPTY_TEXT, repeat(literal("ab"), 1, 4)), repeat(literal("ab"), 0, 4)),
        (concat(repeat(literal("ab"), 1, 2), repeat(literal("ab"), 0, 3)), repeat(literal("ab"), 1, 5)),
        (union(repeat(literal("ab"), 0, 3), repeat(literal("ab"), 4, 9)), repeat(literal("ab"), 0, 9)),
        (union(literal("a"), literal("b")), characters(CharSet.of("ab"))),
        (complement(repeat(characters(ANY_CHARACTER), 3)), repeat(characters(ANY_CHARACTER), 0, 2)),
        (complement(complement(repeat(characters(ANY_CHARACTER), 2, 5))), repeat(characters(ANY_CHARACTER), 2, 5)),
        (intersection(repeat(characters(ANY_CHARACTER), 5, 200), literal("abcd")), NOTHING),
        (intersection(repeat(characters(ANY_CHARACTER), 0, 9), literal("a"), complement(literal("b"))), literal("a")),
        (
            union(concat(literal("ab"), ANY_TEXT), concat(repeat(literal("ab"), 2, 3), ANY_TEXT)),
            concat(repeat(literal("ab"), 1, 3), ANY_TEXT),
        ),
        (complement(NOTHING), ANY_TEXT),
        (union(EMPTY_TEXT, literal("a"), complement(EMPTY_TEXT)), ANY_TEXT),
        (union(EMPTY_TEXT, literal("a"), characters(~CharSet.of("a"))), repeat(characters(ANY_CHARACTER), 0, 1)),
        (
            union(repeat(repeat(literal("a"), 2), 0, 2), union(EMPTY_TEXT, repeat(literal("a"), 2))),
            repeat(repeat(literal("a"), 2), 0, 2),
        ),
    ],
)
def test_a_language_has_one_normal_form(one: Language, other: Language) -> None:
    assert one is other


def test_counts_of_an_item_that_is_a_count_itself_are_not_added_up() -> None:
    triple = repeat(literal("ab"), 3, 3)
    language = union(repeat(triple, 0, 2), triple)
    assert {count for count in range(14) if language.matches("ab" * count)} == {0, 3, 6}


@pytest.mark.parametrize("inner", [(0, 2), (1, 3), (2, 3), (3, 4), (2, 2), (0, None), (1, None), (3, None)])
@pytest.mark.parametrize("outer", [(0, 1), (0, 2), (1, 2), (2, 4), (3, 3), (0, None), (1, None), (2, None)])
def test_a_repeat_of_a_repeat_leaves_the_same_gaps(
    inner: tuple[int, int | None], outer: tuple[int, int | None]
) -> None:
    longest = 14
    once = {count for count in range(longest + 1) if inner[0] <= count and (inner[1] is None or count <= inner[1])}
    reached, allowed = {0}, set() if outer[0] else {0}
    for times in range(1, (longest if outer[1] is None else outer[1]) + 1):
        reached = {one + other for one in reached for other in once if one + other <= longest}
        allowed |= reached if times >= outer[0] else set()
    language = repeat(repeat(literal("ab"), *inner), *outer)
    assert {count for count in range(longest + 1) if language.matches("ab" * count)} == allowed


def test_a_length_is_left_out_only_where_it_follows() -> None:
    words = union(literal("a"), literal("abca"))
    assert texts_of(intersection(repeat(characters(ANY_CHARACTER), 0, 3), words)) == {"a"}
    assert texts_of(intersection(repeat(characters(ANY_CHARACTER), 2), words)) == {"abca"}
    assert intersection(repeat(characters(ANY_CHARACTER), 1, 4), words) is words


def test_the_shortest_text_counts_bytes_and_prefers_what_a_reader_can_see() -> None:
    assert union(literal("漢"), literal("ab")).shortest() == "ab"
    assert characters(~CharSet.of("0")).shortest() == "1"
    assert characters(CharSet.of("é\t -")).shortest() == " "
    assert complement(union(EMPTY_TEXT, characters(CharSet.span("\0", "\u07ff")))).shortest() == "00"
    searched = intersection(union(literal("漢字"), literal("abcde")), complement(literal("x")))
    assert searched.shortest() == "abcde"


def test_a_first_match_ends_at_the_first_marker() -> None:
    marker = "</tool_call>"
    language = first_match(marker)
    held = [marker, f"a{marker}", f"</tool{marker}", f"<{marker}", f"</tool_call{marker}"]
    assert all(language.matches(text) for text in held)
    assert not any(language.matches(text) for text in ["", "</tool_call", f"{marker}{marker}", f"{marker} "])
    automaton = language.automaton(100)
    assert automaton is not None and len(automaton.transitions) == len(marker) + 1


def test_a_text_without_markers_holds_none_of_them() -> None:
    language = without("</a>", "]]")
    assert all(language.matches(text) for text in ["", "</a", "]", "</a ]"])
    assert not any(language.matches(text) for text in ["</a>", "x]]", "]]]", "a</a>b"])


def test_no_language_holds_a_lone_surrogate() -> None:
    assert not ANY_TEXT.matches("a\ud800")
    assert complement(literal("a")).derive("\udfff") is NOTHING
    with pytest.raises(ConstraintError, match="lone surrogate"):
        literal("a\ud800")


def states_on_the_way(language: Language, text: str) -> int:
    seen = {language}
    for char in text:
        language = language.derive(char)
        seen.add(language)
    assert language.is_nullable, "the text is one of the language"
    return len(seen)


def test_counted_repeats_stay_counted() -> None:
    string = concat(literal('"'), repeat(characters(~CharSet.of('"\\')), 0, 2000), literal('"'))
    assert states_on_the_way(string, '"' + "x" * 2000 + '"') == 2003
    assert not string.matches('"' + "x" * 2001 + '"')
    automaton = string.automaton(2003)
    assert automaton is not None and len(automaton.transitions) == 2003
    assert string.automaton(2002) is None
    assert len(repeat(union(literal("ab"), literal("c")), 500, 1000).shortest() or "") == 500


def test_options_of_different_lengths_do_not_multiply_under_a_counted_repeat() -> None:
    language = repeat(union(literal("a"), literal("ab"), literal("abb")), 0, 100)
    assert states_on_the_way(language, "aabbab" * 20) <= 121


def test_three_hundred_literals_are_a_trie() -> None:
    texts = [f"property_{number * 7919 % 1000}" for number in range(300)]
    language = union(*map(literal, texts))
    assert all(language.matches(text) for text in texts) and not language.matches("property_")
    automaton = language.automaton(1000)
    assert automaton is not None and len(automaton.transitions) <= 200


def test_deep_languages_need_no_deep_stack() -> None:
    chain = union(*(literal("a" * length) for length in range(1, 3001, 2)))
    assert chain.matches("a" * 2999) and not chain.matches("a" * 3000) and chain.shortest() == "a"
    assert chain.substitute(characters) is chain
    nested = EMPTY_TEXT
    for _ in range(2000):
        nested = repeat(concat(literal("a"), nested, literal("b")), 0, 1)
    assert nested.matches("a" * 1500 + "b" * 1500) and not nested.matches("aab") and nested.shortest() == ""
    left = literal("a")
    for _ in range(2000):
        left = concat(repeat(left, 0, 1), literal("b"))
    assert left.matches("a" + "b" * 2000) and left.matches("b" * 7) and not left.matches("a" + "b" * 1999)
    long = literal("ab" * 5000)
    assert long.matches("ab" * 5000) and long.derive("a").derive("b") is literal("ab" * 4999)


def test_an_intersection_of_many_conditions_stays_small() -> None:
    words = union(*(literal(f"forbidden{number}") for number in range(20)))
    language = intersection(
        repeat(characters(ANY_CHARACTER), 5, 200),
        concat(repeat(characters(CharSet.span("a", "z")), 1), repeat(characters(CharSet.span("0", "9")), 0, 3)),
        complement(words),
    )
    assert language.matches("forbidden20") and language.matches("a" * 200)
    assert not any(language.matches(text) for text in ["forbidden7", "abc", "a" * 201, "a1234"])
    assert states_on_the_way(language, "forbidden" * 20) <= 181
    assert len(language.shortest() or "") == 5


def test_unions_of_unions_do_not_grow_beyond_what_is_asked() -> None:
    """Factored out to the end, these options would be 3**40 texts."""
    options: list[Language] = [EMPTY_TEXT] * 3
    for _ in range(40):
        options = [
            union(*(concat(literal(str(digit)), options[(rest + digit) % 3]) for digit in range(3)))
            for rest in range(3)
        ]
    assert union(*options, concat(literal("0"), options[1])).matches("0" * 40)


def test_a_search_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cheapest, "MAX_STEPS", 100)
    letters, ends = characters(CharSet.of("ab")), literal("a")
    one = concat(repeat(letters, 0), ends, repeat(letters, 12, 12))
    other = concat(repeat(letters, 0), literal("b"), repeat(letters, 12, 12))
    with pytest.raises(ConstraintError, match="too complex: its search takes more than 100 steps"):
        intersection(one, other).is_empty()


def test_languages_that_nobody_holds_are_forgotten() -> None:
    language = repeat(concat(literal("forgotten"), ANY_TEXT, literal("languages")), 0, 7)
    states_on_the_way(language, "forgotten languages" * 3)
    watched = weakref.ref(language.derive("f"))
    assert watched() is not None
    del language
    gc.collect()
    assert watched() is None


def test_a_copy_is_the_same_object_and_a_pickle_is_an_error() -> None:
    language = union(literal("ab"), repeat(literal("c"), 2))
    assert copy.copy(language) is language and copy.deepcopy([language])[0] is language
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(language)


def test_threads_get_the_same_object() -> None:
    barrier, found = threading.Barrier(4), []

    def make() -> None:
        barrier.wait()
        found.append([concat(repeat(literal(f"thread{number}"), 0), literal("!")) for number in range(300)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(languages == found[0] for languages in found) and len(found) == 4


RANGES = st.lists(st.tuples(st.integers(0xD7F0, 0xE010), st.integers(-1, 20)), max_size=5)
SETS = RANGES.map(lambda pairs: CharSet((low, low + length) for low, length in pairs))
WINDOW = [chr(code) for code in (0, *range(0xD7E0, 0xE040), 0x10FFFF)]


def in_window(char_set: CharSet) -> set[str]:
    return {char for char in WINDOW if char in char_set}


@given(RANGES)
def test_a_character_set_holds_its_ranges_without_surrogates(pairs: list[tuple[int, int]]) -> None:
    char_set = CharSet((low, low + length) for low, length in pairs)
    expected = {chr(code) for low, length in pairs for code in range(low, low + length + 1)}
    expected = {char for char in expected if not "\ud800" <= char <= "\udfff"}
    assert in_window(char_set) == expected and len(char_set) == len(expected) and bool(char_set) == bool(expected)
    assert all(low <= high for low, high in char_set.ranges)
    assert all(high + 1 < low for (_, high), (low, _) in itertools.pairwise(char_set.ranges))


@given(SETS, SETS)
def test_character_sets_are_sets(one: CharSet, other: CharSet) -> None:
    assert in_window(one | other) == in_window(one) | in_window(other)
    assert in_window(one & other) == in_window(one) & in_window(other)
    assert in_window(one - other) == in_window(one) - in_window(other)
    assert in_window(~one) == in_window(ANY_CHARACTER) - in_window(one)
    assert (one == other) == (in_window(one) == in_window(other))
    assert not one or one.example() in one
    if one == other:
        assert hash(one) == hash(other)


@given(st.lists(SETS, max_size=4))
def test_a_partition_is_the_coarsest(sets: list[CharSet]) -> None:
    partition = coarsest_partition(frozenset(sets))
    assert sum(map(len, partition.classes)) == len(ANY_CHARACTER)
    keys: dict[int, list[bool]] = {}
    for char in WINDOW:
        index = partition.index_of(char)
        if "\ud800" <= char <= "\udfff":
            assert index == -1
        else:
            assert char in partition.classes[index]
            assert keys.setdefault(index, [char in one for one in sets]) == [char in one for one in sets]
    assert len({tuple(key) for key in keys.values()}) == len(keys) == len(partition.classes)


def test_a_literal_is_one_node() -> None:
    language = concat(*map(literal, "abc"))
    assert isinstance(language, Literal) and language.text == "abc" and not language.children

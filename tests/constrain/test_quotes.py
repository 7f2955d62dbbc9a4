"""What a reader of JSON strings is told of a language is what reading each of its texts shows."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_agent_llm.constrain.backends.quotes import BEGIN, BEYOND, CLOSED, ESCAPED, INSIDE, OTHER, reach_of
from mlx_agent_llm.languages.regular import Language, characters, complement, concat, intersection, literal, union
from mlx_agent_llm.languages.regular import repeat as repeated
from mlx_agent_llm.languages.regular.char_set import CharSet
from mlx_agent_llm.languages.regular.enumeration import finite_texts, some_texts
from tests.support.search import examples

STATES = BEGIN, INSIDE, ESCAPED, CLOSED, BEYOND, OTHER
TEXTS = st.text('"\\ab', max_size=4).map(literal)
SETS = st.text('"\\ab', min_size=1, max_size=3).map(lambda text: characters(CharSet.of(text)))
PLAIN = st.recursive(
    st.one_of(TEXTS, SETS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: concat(*parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: union(*parts)),
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(lambda one: repeated(one[0], one[1], sum(one[1:]))),
    ),
    max_leaves=6,
)


def read(text: str, state: int) -> int:
    """The state after a text, one character after the other."""
    for char in text:
        match state, char:
            case (1, '"') | (4, _):
                state = INSIDE
            case (2, '"'):
                state = CLOSED
            case (2, "\\"):
                state = ESCAPED
            case (8, _):
                state = BEYOND
            case (1, _):
                state = OTHER
    return state


@settings(max_examples=examples(25))
@example(language=repeated(literal('"'), 2, 8))
@given(language=PLAIN)
def test_of_a_language_with_few_texts_the_states_are_those_after_its_texts(language: Language) -> None:
    texts = finite_texts(language, 400)
    if texts is not None:
        found = tuple({read(text, state) for text in texts} for state in STATES)
        assert reach_of(language) == tuple(map(sum, found))


@settings(max_examples=examples(15))
@given(one=PLAIN, other=PLAIN, least=st.integers(0, 3))
def test_of_every_other_language_none_is_left_out(one: Language, other: Language, least: int) -> None:
    for language in (intersection(one, complement(other)), repeated(one, least), complement(one)):
        reach = reach_of(language)
        for text in some_texts(language, 20):
            assert all(read(text, state) & states for state, states in zip(STATES, reach, strict=True)), text


@settings(max_examples=examples(25))
@given(language=PLAIN, limit=st.integers(1, 40))
def test_few_texts_are_found_without_an_automaton_and_are_all(language: Language, limit: int) -> None:
    texts, known = finite_texts(language, limit), some_texts(language, limit + 1)
    if texts is not None:
        assert texts == sorted(known)
    elif limit > 20:
        assert len(known) > 10  # those that come in very many ways are given up a little earlier

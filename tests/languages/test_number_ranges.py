"""Numbers within bounds as languages, against jsonschema's own check of the numbers that a parser reads."""

import json
import random
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.numbers.languages import INTEGER, NUMBER, multiples_language, range_language
from mlx_agent_llm.languages.numbers.ranges import Bounds, Grid, decimal_grid, integer_grid
from mlx_agent_llm.languages.regular import Language
from tests.support.languages import accepts, is_subset
from tests.support.search import examples

KEYWORDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def texts_of(value: int, places: int) -> list[str]:
    """Every way to write value / 10**places: with the zeros at the end, and with some or all of them left out."""
    digits = f"{abs(value):0{places + 1}}"
    sign, whole, fraction = "-" if value < 0 else "", digits[: len(digits) - places], digits[len(digits) - places :]
    kept = len(fraction.rstrip("0"))
    return [f"{sign}{whole}{'.' if end else ''}{fraction[:end]}" for end in range(kept, places + 1)]


GRIDS = st.builds(
    lambda low, length, places: Grid(low, low + length, places),
    st.integers(-300, 300),
    st.integers(0, 400),
    st.integers(0, 2),
)
DIVISORS = st.lists(st.sampled_from([1, 2, 3, 5, 7, 10, 12, 25, 100, 150]), max_size=2)


@settings(max_examples=examples(200))
@given(GRIDS, DIVISORS, DIVISORS)
def test_a_range_holds_its_grid_and_nothing_else(grid: Grid, multiples: list[int], non_multiples: list[int]) -> None:
    language = range_language(grid, multiples, non_multiples)
    for value in range(grid.low - 30, grid.high + 30):
        is_member = (
            grid.low <= value <= grid.high
            and all(value % divisor == 0 for divisor in multiples)
            and all(value % divisor for divisor in non_multiples)
        )
        for text in texts_of(value, grid.places):
            assert language.matches(text) == is_member, text
    assert not any(language.matches(text) for text in ("", "-", "00", "01", "-0", "1.", ".5", "+1", "1e1", "-00.1"))


def bounded(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Bounds]:
    return st.builds(Bounds, *[st.none() | numbers] * 4)


def check_random_texts(language: Language, schema: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema)
    if not language.is_empty():
        for seed in range(8):
            text = random_text(language, random.Random(seed))
            assert validator.is_valid(json.loads(text)), f"{text} breaks {schema}"


def random_text(language: Language, source: random.Random) -> str:
    """A text of a language built without intersection and complement: each derivative but nothing() leads on."""
    text = ""
    while True:
        nexts = [
            (chars, after)
            for chars in language.next_classes()
            if not (after := language.derive(chars.example())).is_empty()
        ]
        if not nexts or (language.is_nullable and source.random() < 0.1):
            return text
        chars, language = source.choice(nexts)
        text += chr(source.randint(*source.choice(chars.ranges)))


def schema_of(bounds: Bounds, **keywords: Any) -> dict[str, Any]:
    given_bounds = {keyword: bound for keyword, bound in zip(KEYWORDS, order(bounds), strict=True) if bound is not None}
    return given_bounds | keywords


def order(bounds: Bounds) -> tuple[Any, ...]:
    return bounds.minimum, bounds.exclusive_minimum, bounds.maximum, bounds.exclusive_maximum


@settings(max_examples=examples(150))
@given(bounded(st.integers(-(10**20), 10**20) | st.floats(-1e6, 1e6)), st.sampled_from([1, 2, 3, 7, 60]))
def test_every_integer_within_bounds_is_valid(bounds: Bounds, divisor: int) -> None:
    grid = integer_grid(bounds)
    assume(grid.low <= grid.high)
    check_random_texts(range_language(grid, [divisor]), schema_of(bounds, type="integer", multipleOf=divisor))


@settings(max_examples=examples(150))
@given(bounded(st.floats(-1e9, 1e9).map(lambda bound: round(bound, 4)) | st.sampled_from([0, 0.1, 1e14, -1e14 + 1])))
def test_every_decimal_within_bounds_is_valid(bounds: Bounds) -> None:
    grid = decimal_grid(bounds)
    assume(grid is not None and grid.low <= grid.high)
    assert grid is not None
    check_random_texts(range_language(grid), schema_of(bounds, type="number"))


@settings(max_examples=examples(150))
@given(
    bounded(st.integers(-40, 40) | st.floats(-40, 40).map(lambda bound: round(bound, 3))),
    st.lists(st.sampled_from([2, 5, 0.5, 2.5, 0.125, 1.0, 0.1, 0.3, 0.01]), min_size=1, max_size=2),
)
def test_every_multiple_within_bounds_is_valid(bounds: Bounds, divisors: list[float]) -> None:
    language = multiples_language(bounds, divisors)
    assume(language is not None)
    assert language is not None
    schema = schema_of(bounds, allOf=[{"multipleOf": divisor} for divisor in divisors])
    check_random_texts(language, schema)
    validator = Draft202012Validator(schema)
    for hundredths in range(-4000, 4001, 5):
        text = texts_of(hundredths, 2)[0]
        exact = all(Fraction(text) % Fraction(repr(divisor)) == 0 for divisor in divisors)
        assert language.matches(text) == (exact and validator.is_valid(json.loads(text))), text


def test_bounds_may_have_hundreds_of_digits() -> None:
    grid = integer_grid(Bounds(minimum=-7, maximum=1e300))
    language = range_language(grid)
    assert language.matches(str(int(1e300))) and language.matches("-7")
    assert not language.matches(str(int(1e300) + 1)) and not language.matches("-8")
    assert range_language(grid, [4]).matches("1" + "0" * 299)


def test_large_multiples_of_what_a_double_holds_are_valid() -> None:
    for divisor in (0.5, 0.375, 2.25, 1024, 360, 3.0):
        language = multiples_language(Bounds(), [divisor])
        assert language is not None
        check_random_texts(language, {"multipleOf": divisor})
        near_the_end = multiples_language(Bounds(minimum=2**43), [divisor])
        assert near_the_end is not None
        check_random_texts(near_the_end, {"multipleOf": divisor, "minimum": 2**43})


def test_decimals_end_where_a_double_has_no_more_places() -> None:
    grid = decimal_grid(Bounds(minimum=0.5))
    assert grid is not None
    language = range_language(grid)
    assert language.matches("1000000000000000") and not language.matches("1000000000000001")


def test_multiples_end_where_a_double_would_round_them() -> None:
    language = multiples_language(Bounds(), [0.0625])
    assert language is not None
    assert language.matches(f"{2**49 - 1}.0625") and language.matches(f"-{2**49 - 1}.9375")
    assert not language.matches(f"{2**49}.0625") and not language.matches(f"{2**49 + 1}")


def test_multiples_that_doubles_do_not_tell_are_refused_or_left_out() -> None:
    assert multiples_language(Bounds(), [0.01]) is None
    assert multiples_language(Bounds(minimum=0), [0.01]) is None
    assert multiples_language(Bounds(minimum=0, maximum=10.01), [0.01]) is None
    cents = multiples_language(Bounds(minimum=0, exclusive_maximum=1), [0.01])
    assert cents is not None and cents.matches("0.05") and cents.matches("0") and not cents.matches("1")
    assert 0.07 / 0.01 != 7 and not cents.matches("0.07")


@pytest.mark.parametrize(("divisor", "most_states"), [(2, 50), (10, 50), (1000, 100), (3, 80), (7, 150), (360, 300)])
def test_multiples_need_few_states(divisor: int, most_states: int) -> None:
    automaton = range_language(integer_grid(Bounds()), [divisor]).automaton(most_states)
    assert automaton is not None and len(automaton.transitions) > 20


def test_numbers_that_are_no_integers_need_few_states() -> None:
    automaton = range_language(Grid(-(10**15), 10**15, 6), [], [10**6]).automaton(120)
    assert automaton is not None and accepts(automaton, "-17.000001") and not accepts(automaton, "3.000")


def test_multiples_of_a_large_prime_are_an_error() -> None:
    with pytest.raises(ConstraintError, match="multiples of 997 in units of 1/1 need more than 3000 states"):
        range_language(integer_grid(Bounds()), [997])
    language = range_language(integer_grid(Bounds(minimum=0, maximum=999)), [997])
    assert language.matches("997") and language.matches("0") and not language.matches("1")


@pytest.mark.parametrize(
    ("language", "pattern"),
    [
        (INTEGER, r"0|-?[1-9][0-9]{0,18}"),
        (NUMBER, r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?"),
    ],
)
def test_numbers_without_bounds_are_what_json_writes(language: Language, pattern: str) -> None:
    source, examples = random.Random(0), ["0", "-0", "01", "1.", "-1.50e+09", "1e400", "-", "9" * 19, "9" * 20, "-7"]
    for text in [*examples, *(random_text(language, source) for _ in range(200))]:
        assert language.matches(text) == bool(re.fullmatch(pattern, text))
        if language.matches(text):
            assert abs(json.loads(text)) < float("inf")
    assert is_subset(INTEGER, NUMBER)

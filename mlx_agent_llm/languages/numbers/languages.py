"""Numbers within bounds, and multiples of numbers, as languages of their decimal digits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from mlx_agent_llm.languages.numbers.divisible_digits import DIGIT, DivisibleDigits
from mlx_agent_llm.languages.numbers.ranges import (
    EXACT_LIMIT,
    INTEGER_DIGITS,
    MAX_PLACES,
    Bounds,
    Grid,
    Number,
    bounded_grid,
    is_within,
    places_of,
)
from mlx_agent_llm.languages.regular import Language, characters, concat, literal, repeat, union
from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_LISTED = 1000

_MINUS = repeat(literal("-"), 0, 1)
_FRACTION = concat(literal("."), repeat(DIGIT, 1, MAX_PLACES))
# Two digits of exponent keep every number finite as a double.
_EXPONENT = concat(characters(CharSet.of("eE")), repeat(characters(CharSet.of("+-")), 0, 1), repeat(DIGIT, 1, 2))
_FROM_ONE = concat(characters(CharSet.span("1", "9")), repeat(DIGIT, 0, INTEGER_DIGITS - 1))

INTEGER = union(literal("0"), concat(_MINUS, _FROM_ONE))
NUMBER = concat(_MINUS, union(literal("0"), _FROM_ONE), repeat(_FRACTION, 0, 1), repeat(_EXPONENT, 0, 1))


def range_language(grid: Grid, multiples: Iterable[int] = (), non_multiples: Iterable[int] = ()) -> Language:
    """The numbers of a grid, with the fraction optional where it is zero.

    multiples, non_multiples: in units of the grid, positive; a number must be a multiple of all of the former and of
    none of the latter. ConstraintError when telling them by their digits takes too many states.
    """
    digits = DivisibleDigits(grid.places, multiples, non_multiples)
    negative = digits.numbers(max(1, -grid.high), -grid.low)
    return union(concat(literal("-"), negative), digits.numbers(max(0, grid.low), grid.high))


def multiples_language(bounds: Bounds, divisors: Iterable[Number]) -> Language | None:
    """The multiples of positive numbers within bounds, None where they cannot be told exactly.

    A reader divides doubles. That is exact for all multiples, up to 15 digits or 53 bits, of divisors that a double
    holds exactly, like 3, 0.5 or 2.25. Multiples of any others, like 0.01, are tried one by one, up to 1,000 of them;
    those that a reader would not find to be multiples, like 0.07, are left out.
    """
    steps = list(divisors)
    if any(Fraction(step) != Fraction(repr(step)) for step in steps):
        return _listed_multiples(bounds, steps)
    places = max(map(places_of, steps))
    denominator = math.lcm(*(Fraction(step).denominator for step in steps))
    grid = bounded_grid(bounds, places, min(EXACT_LIMIT, 2**53 // denominator))
    return None if grid is None else range_language(grid, [int(Fraction(step) * 10**places) for step in steps])


def _listed_multiples(bounds: Bounds, divisors: list[Number]) -> Language | None:
    exact = [Fraction(repr(divisor)) for divisor in divisors]
    step = Fraction(math.lcm(*(one.numerator for one in exact)), math.gcd(*(one.denominator for one in exact)))
    lows = [Fraction(repr(bound)) for bound in (bounds.minimum, bounds.exclusive_minimum) if bound is not None]
    highs = [Fraction(repr(bound)) for bound in (bounds.maximum, bounds.exclusive_maximum) if bound is not None]
    if not lows or not highs:
        return None
    first, last = math.ceil(max(lows) / step), math.floor(min(highs) / step)
    if last - first >= MAX_LISTED:
        return None
    texts = (_decimal_text(multiple * step) for multiple in range(first, last + 1))
    return union(*(literal(text) for text in texts if _is_found(text, bounds, divisors)))


def _is_found(text: str, bounds: Bounds, divisors: list[Number]) -> bool:
    """Whether a reader finds a number within bounds and a multiple of all divisors."""
    value: Number = float(text) if "." in text else int(text)
    return is_within(value, bounds) and all(_is_multiple(value, divisor) for divisor in divisors)


def _is_multiple(value: Number, divisor: Number) -> bool:
    return (value / divisor).is_integer() if isinstance(divisor, float) else value % divisor == 0


def _decimal_text(value: Fraction) -> str:
    """A fraction that is a decimal, as plain digits."""
    places = next(places for places in range(value.denominator.bit_length()) if 10**places % value.denominator == 0)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}}"
    sign, split = "-" if value < 0 else "", len(digits) - places
    return f"{sign}{digits[:split]}.{digits[split:]}" if places else sign + digits

"""Sets of numbers as languages of their texts: no exponents, and few enough digits for a double to tell them apart."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from mlx_agent_llm.constrain.schema.values.json_text import write_json
from mlx_agent_llm.constrain.schema.values.number_type import Number, NumberType
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.numbers.languages import multiples_language, range_language
from mlx_agent_llm.languages.numbers.ranges import (
    DEFAULT_PLACES,
    MAX_PLACES,
    Bounds,
    Grid,
    bounded_grid,
    decimal_grid,
    integer_grid,
    places_of,
)
from mlx_agent_llm.languages.regular import NOTHING, Language, complement, intersection, literal, union


class InexactNumberError(Exception):
    """A set of numbers that cannot be written exactly; `keyword` at `pointer` is the one to blame."""

    def __init__(self, pointer: str, keyword: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer, self.keyword, self.reason = pointer, keyword, reason


def language_of_numbers(parts: tuple[NumberType, ...]) -> Language:
    """The texts of the numbers of any part; raises InexactNumberError."""
    constants = [literal(text) for part in parts for text in _texts_of(part.constant, part.is_integer)]
    return union(*constants, *(_language(part) for part in parts if part.constant is None))


@lru_cache(maxsize=1024)
def _language(numbers: NumberType) -> Language:
    bounds = _bounds(numbers)
    wanted, unwanted = list(numbers.multiples), list(numbers.non_multiples)
    if numbers.is_integer is not None:
        (wanted if numbers.is_integer else unwanted).append(1)
    if not unwanted and not wanted:
        return _range(numbers, decimal_grid(bounds))
    if numbers.is_integer and all(isinstance(divisor, int) for divisor in wanted + unwanted):
        grid = bounded_grid(bounds, 0, 10**MAX_PLACES) if unwanted else integer_grid(bounds)
        return _range(numbers, grid, map(int, wanted), map(int, unwanted))
    if not unwanted:
        language = multiples_language(bounds, wanted)
        if language is None:
            raise _inexact(numbers, "the multiples cannot be told by a reader that divides doubles")
        return language
    return _without_multiples(numbers, bounds, wanted, unwanted)


def _texts_of(value: Number | None, is_integer: bool | None) -> list[str]:
    if value is None:
        return []
    if isinstance(value, float) and value.is_integer():
        return [str(int(value))] if is_integer else [str(int(value)), write_json(value)]
    return [write_json(value)]


def _without_multiples(numbers: NumberType, bounds: Bounds, wanted: list[Number], unwanted: list[Number]) -> Language:
    """Numbers of at most 15 digits, which doubles tell apart; so what is no multiple does not become one."""
    divisors = wanted + unwanted
    places = max(DEFAULT_PLACES, *map(places_of, divisors))
    if places > MAX_PLACES // 2 or any(Fraction(divisor) != Fraction(repr(divisor)) for divisor in divisors):
        raise _inexact(numbers, "what is no multiple cannot be told by a reader that divides doubles")
    grid = bounded_grid(bounds, places, 10 ** (MAX_PLACES - places))
    parts = [_range(numbers, grid, [int(Fraction(divisor) * 10**places)]) for divisor in divisors]
    others = [complement(part) for part in parts[len(wanted) :]]
    return intersection(_range(numbers, grid), *parts[: len(wanted)], *others)


def _range(
    numbers: NumberType, grid: Grid | None, multiples: Iterable[int] = (), others: Iterable[int] = ()
) -> Language:
    if grid is None:
        raise _inexact(numbers, "a double cannot tell numbers near this bound apart")
    if grid.low > grid.high:
        return NOTHING
    try:
        return range_language(grid, multiples, others)
    except ConstraintError as error:
        raise _inexact(numbers, str(error)) from None


def _bounds(numbers: NumberType) -> Bounds:
    low, high = numbers.low, numbers.high
    return Bounds(
        low.value if low and not low.is_open else None,
        low.value if low and low.is_open else None,
        high.value if high and high.is_closed else None,
        high.value if high and not high.is_closed else None,
    )


def _inexact(numbers: NumberType, reason: str) -> InexactNumberError:
    if numbers.multiples or numbers.non_multiples:
        keyword = "multipleOf"
    elif numbers.low is not None:
        keyword = "exclusiveMinimum" if numbers.low.is_open else "minimum"
    elif numbers.high is not None:
        keyword = "maximum" if numbers.high.is_closed else "exclusiveMaximum"
    else:
        keyword = "type"
    return InexactNumberError(numbers.pointer, keyword, reason)

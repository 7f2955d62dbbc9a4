"""Sets of numbers as one conjunction of bounds, integrality and multiples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

Number = int | float


class Low(NamedTuple):
    """A lower bound; of two, the larger tuple is the tighter bound."""

    value: Number
    is_open: bool


class High(NamedTuple):
    """An upper bound; of two, the smaller tuple is the tighter bound."""

    value: Number
    is_closed: bool


@dataclass(frozen=True)
class NumberType:
    """The numbers between two bounds that are integers or not, and multiples of some numbers but not of others.

    pointer: the JSON pointer of the first schema that asked for something, for errors.
    """

    low: Low | None = None
    high: High | None = None
    is_integer: bool | None = None
    multiples: frozenset[Number] = frozenset()
    non_multiples: frozenset[Number] = frozenset()
    pointer: str = field(default="", compare=False)

    @property
    def constant(self) -> Number | None:
        """The only number that the bounds leave."""
        if self.low is not None and self.high is not None and self.low.value == self.high.value:
            return self.low.value
        return None


ANY_NUMBER = NumberType()
ANY_INTEGER = NumberType(is_integer=True)


def constant_number(value: Number) -> NumberType:
    """The set of one number."""
    return NumberType(Low(value, False), High(value, True))


def multiples_of(divisor: Number) -> NumberType:
    """The multiples of a positive number."""
    if divisor == 1:
        return NumberType(is_integer=True)
    is_whole = divisor == int(divisor)
    return NumberType(
        is_integer=True if is_whole else None, multiples=frozenset({int(divisor) if is_whole else divisor})
    )


def intersect_numbers(one: NumberType, other: NumberType) -> NumberType | None:
    """The numbers of both, None when it is plain that there are none."""
    if None not in (one.is_integer, other.is_integer) and one.is_integer != other.is_integer:
        return None
    both = NumberType(
        max((bound for bound in (one.low, other.low) if bound is not None), default=None),
        min((bound for bound in (one.high, other.high) if bound is not None), default=None),
        other.is_integer if one.is_integer is None else one.is_integer,
        one.multiples | other.multiples,
        one.non_multiples | other.non_multiples,
        one.pointer or other.pointer,
    )
    return None if _is_empty(both) else both


def complement_of_numbers(numbers: NumberType) -> list[NumberType]:
    """Types that together hold every other number."""
    result = []
    if numbers.low is not None:
        result.append(NumberType(high=High(numbers.low.value, numbers.low.is_open)))
    if numbers.high is not None:
        result.append(NumberType(low=Low(numbers.high.value, numbers.high.is_closed)))
    if numbers.is_integer is not None:
        result.append(NumberType(is_integer=not numbers.is_integer))
    for divisor in numbers.multiples:
        result.append(NumberType(non_multiples=frozenset({divisor})))
    for divisor in numbers.non_multiples:
        result.append(multiples_of(divisor))
    return [replace(part, pointer=numbers.pointer) for part in result]


def is_multiple(value: Number, divisor: Number) -> bool | None:
    """Whether a number is a multiple; None where arithmetic on decimals and on doubles disagree."""
    exact = Fraction(Decimal(repr(value))) % Fraction(Decimal(repr(divisor))) == 0
    try:
        as_double = float(value / divisor).is_integer()
    except OverflowError:
        return None
    return exact if exact == as_double else None


def _is_empty(numbers: NumberType) -> bool:
    low, high = numbers.low, numbers.high
    if numbers.multiples & numbers.non_multiples:
        return True
    if low is None or high is None:
        return False
    if numbers.constant is not None:
        return low.is_open or not high.is_closed or not holds(numbers, low.value)
    if low.value > high.value:
        return True
    return numbers.is_integer is True and first_integer(low) > last_integer(high)


def holds(numbers: NumberType, value: Number) -> bool:
    """Whether a number within the bounds is one of the type."""
    if numbers.is_integer is not None and (value == int(value)) != numbers.is_integer:
        return False
    return all(is_multiple(value, divisor) is True for divisor in numbers.multiples) and all(
        is_multiple(value, divisor) is False for divisor in numbers.non_multiples
    )


def first_integer(low: Low) -> int:
    """The smallest integer that a bound allows."""
    return math.floor(low.value) + 1 if low.is_open else math.ceil(low.value)


def last_integer(high: High) -> int:
    """The largest integer that a bound allows."""
    return math.floor(high.value) if high.is_closed else math.ceil(high.value) - 1

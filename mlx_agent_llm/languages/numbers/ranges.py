"""Numbers within bounds that a double can tell apart; arithmetic alone, no JSON Schema and no grammar.

A double keeps 15 decimal digits apart, so decimals are generated on a grid of at most 15 places, and the grid's ends
are moved until they still satisfy the bound after a parser has rounded them to a double. Rounding is monotone: what
holds at both ends holds between them.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

INTEGER_DIGITS = 19
MAX_PLACES = 15
DEFAULT_PLACES = 6
EXACT_LIMIT = 10**15

Number = int | float


class Bounds(NamedTuple):
    """The four bounds of a JSON Schema number; None where there is none."""

    minimum: Number | None = None
    exclusive_minimum: Number | None = None
    maximum: Number | None = None
    exclusive_maximum: Number | None = None


class Grid(NamedTuple):
    """All multiples of 10**-places from low / 10**places to high / 10**places."""

    low: int
    high: int
    places: int


def integer_grid(bounds: Bounds) -> Grid:
    """The integers within bounds; an open side ends where a number has one digit more than the other bound."""
    lows = [] if bounds.minimum is None else [math.ceil(bounds.minimum)]
    lows += [] if bounds.exclusive_minimum is None else [math.floor(bounds.exclusive_minimum) + 1]
    highs = [] if bounds.maximum is None else [math.floor(bounds.maximum)]
    highs += [] if bounds.exclusive_maximum is None else [math.ceil(bounds.exclusive_maximum) - 1]
    digits = max([INTEGER_DIGITS, *(len(str(abs(b))) + 1 for b in lows + highs)])
    return Grid(max(lows, default=1 - 10**digits), min(highs, default=10**digits - 1), 0)


def decimal_grid(bounds: Bounds) -> Grid | None:
    """The decimals within bounds, or None when a double cannot tell numbers near a bound apart."""
    places = max([DEFAULT_PLACES, *(places_of(bound) for bound in bounds if bound is not None)])
    return bounded_grid(bounds, places, EXACT_LIMIT)


def bounded_grid(bounds: Bounds, places: int, largest: int) -> Grid | None:
    """The decimals of so many places within bounds and from -largest to largest, or None as above."""
    if places > MAX_PLACES or any(abs(bound) >= largest for bound in bounds if bound is not None):
        return None
    lows = [_edge(bounds.minimum, places, 1, False), _edge(bounds.exclusive_minimum, places, 1, True)]
    highs = [_edge(bounds.maximum, places, -1, False), _edge(bounds.exclusive_maximum, places, -1, True)]
    limit = largest * 10**places
    low = max(-limit if edge is None else edge for edge in lows)
    high = min(limit if edge is None else edge for edge in highs)
    return Grid(low, high, places)


def places_of(number: Number) -> int:
    """The number of decimal places of a finite number as it is written."""
    with localcontext() as context:
        context.prec = 400
        exponent = _decimal(number).normalize().as_tuple().exponent
    assert isinstance(exponent, int), "the number is finite"
    return max(0, -exponent)


def is_within(value: Number, bounds: Bounds) -> bool:
    """Whether a number is within bounds."""
    return (
        (bounds.minimum is None or value >= bounds.minimum)
        and (bounds.exclusive_minimum is None or value > bounds.exclusive_minimum)
        and (bounds.maximum is None or value <= bounds.maximum)
        and (bounds.exclusive_maximum is None or value < bounds.exclusive_maximum)
    )


def _decimal(bound: Number) -> Decimal:
    return Decimal(repr(bound))


def _edge(bound: Number | None, places: int, inward: int, exclusive: bool) -> int | None:
    """A grid point on the inner side of a bound that is still there as a double, the first one if possible."""
    if bound is None:
        return None
    scaled = Fraction(_decimal(bound)) * Fraction(10) ** places
    point: int = math.ceil(scaled) if inward > 0 else math.floor(scaled)
    point += inward if exclusive and point == scaled else 0
    stride = inward
    while not _holds(float(Fraction(point, 10**places)), bound, inward, exclusive):
        point, stride = point + stride, stride * 2
    return point


def _holds(value: float, bound: Number, inward: int, exclusive: bool) -> bool:
    return not exclusive if value == bound else (value > bound) == (inward > 0)

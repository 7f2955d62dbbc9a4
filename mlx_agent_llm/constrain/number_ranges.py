"""Numbers within bounds as grammar expressions; pure arithmetic on decimal digits, no JSON Schema and no xgrammar.

A double keeps 15 decimal digits apart, so decimals are generated on a grid of at most 15 places, and the grid's ends
are moved until they still satisfy the bound after a parser has rounded them to a double. Rounding is monotone: what
holds at both ends holds between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

INTEGER_DIGITS = 19
MAX_PLACES = 15
DEFAULT_PLACES = 6
EXACT_LIMIT = 10**15
UNBOUNDED_INTEGER = f'("-" [1-9] [0-9]{{0,{INTEGER_DIGITS - 1}}} | "0" | [1-9] [0-9]{{0,{INTEGER_DIGITS - 1}}})'
# Two digits of exponent keep every number finite as a double.
UNBOUNDED_NUMBER = (
    f'("-"? ("0" | [1-9] [0-9]{{0,{INTEGER_DIGITS - 1}}}) ("." [0-9]{{1,{MAX_PLACES}}})? ([eE] [+-]? [0-9]{{1,2}})?)'
)

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
    """Return the integers within bounds; an open side ends where a number has one digit more than the other bound."""
    lows = [] if bounds.minimum is None else [math.ceil(bounds.minimum)]
    lows += [] if bounds.exclusive_minimum is None else [math.floor(bounds.exclusive_minimum) + 1]
    highs = [] if bounds.maximum is None else [math.floor(bounds.maximum)]
    highs += [] if bounds.exclusive_maximum is None else [math.ceil(bounds.exclusive_maximum) - 1]
    digits = max([INTEGER_DIGITS, *(len(str(abs(b))) + 1 for b in lows + highs)])
    return Grid(max(lows, default=1 - 10**digits), min(highs, default=10**digits - 1), 0)


def decimal_grid(bounds: Bounds) -> Grid | None:
    """Return the decimals within bounds, or None when a double cannot tell numbers near a bound apart."""
    given = [_decimal(bound) for bound in bounds if bound is not None]
    places = max([DEFAULT_PLACES, *map(_places, given)])
    if places > MAX_PLACES or any(abs(bound) >= EXACT_LIMIT for bound in given):
        return None
    lows = [_edge(bounds.minimum, places, 1, False), _edge(bounds.exclusive_minimum, places, 1, True)]
    highs = [_edge(bounds.maximum, places, -1, False), _edge(bounds.exclusive_maximum, places, -1, True)]
    limit = EXACT_LIMIT * 10**places
    low = max(-limit if edge is None else edge for edge in lows)
    high = min(limit if edge is None else edge for edge in highs)
    return Grid(low, high, places)


def range_expression(grid: Grid) -> str:
    """Return the grammar expression of a non-empty grid, with the fraction optional where it is zero."""
    assert grid.low <= grid.high, f"an empty grid {grid} has no expression"
    parts = []
    if grid.low < 0:
        negatives = _natural(max(1, -grid.high), -grid.low, grid.places)
        parts += [f'"-" ({" | ".join(negatives)})']
    if grid.high >= 0:
        parts += _natural(max(0, grid.low), grid.high, grid.places)
    return f"({' | '.join(parts)})"


def _decimal(bound: Number) -> Decimal:
    return Decimal(repr(bound))


def _places(bound: Decimal) -> int:
    with localcontext() as context:
        context.prec = 400
        exponent = bound.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "bounds are finite"
    return max(0, -exponent)


def _edge(bound: Number | None, places: int, inward: int, exclusive: bool) -> int | None:
    """Return a grid point on the inner side of a bound that is still there as a double, the first one if possible."""
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


def _natural(low: int, high: int, places: int) -> Iterator[str]:
    """Yield alternatives that together are the numbers low..high, scaled by 10**places, 0 <= low <= high."""
    full = 10**places - 1
    (first, low_fraction), (last, high_fraction) = divmod(low, full + 1), divmod(high, full + 1)
    if first == last:
        yield f'"{first}"{_fraction(low_fraction, high_fraction, places)}'
        return
    if low_fraction > 0:
        yield f'"{first}"{_fraction(low_fraction, full, places)}'
        first += 1
    if high_fraction < full:
        yield f'"{last}"{_fraction(0, high_fraction, places)}'
        last -= 1
    for width in range(len(str(first)), len(str(last)) + 1):
        low_integer, high_integer = max(first, 10 ** (width - 1) if width > 1 else 0), min(last, 10**width - 1)
        if low_integer <= high_integer:
            yield f"{_digits(low_integer, high_integer, width, width)}{_fraction(0, full, places)}"


def _fraction(low: int, high: int, places: int) -> str:
    if places == 0:
        return ""
    digits = f'("." {_digits(low, high, places, 1)})'
    return f" {digits}?" if low == 0 else f" {digits}"


def _digits(low: int, high: int, width: int, least: int) -> str:
    """Return `least` to `width` digits that, padded with zeros to `width`, are a number from low to high."""
    if low == 0 and high == 10**width - 1:
        return f"[0-9]{{{max(least, 0)},{width}}}" if width else '""'
    unit = 10 ** (width - 1)
    groups: list[tuple[int, int, tuple[int, int]]] = []  # first digit, last digit, and the range of what follows
    for digit in range(low // unit, high // unit + 1):
        rest = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)
        if groups and groups[-1][2] == rest:
            groups[-1] = (groups[-1][0], digit, rest)
        else:
            groups.append((digit, digit, rest))
    choices = [f"[{first}-{last}] {_digits(*rest, width - 1, least - 1)}" for first, last, rest in groups]
    choices += ['""'] if least <= 0 and low == 0 else []
    return f"({' | '.join(choices)})"

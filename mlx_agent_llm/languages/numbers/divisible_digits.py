"""The digits of numbers within bounds that are multiples of some numbers and not of others.

All are integers in units of the last place. Before the point, what was written counts by its remainder, so that any
number of digits may follow; after it, where their number is fixed, by what it adds to the remainder of the whole.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regular import EMPTY_TEXT, NOTHING, Language, characters, concat, literal, repeat, union
from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_STATES = 3_000

DIGIT = characters(CharSet.span("0", "9"))


class DivisibleDigits:
    """Numbers of `places` decimal places that are multiples of all of `multiples` and of none of `non_multiples`."""

    def __init__(self, places: int, multiples: Iterable[int], non_multiples: Iterable[int]) -> None:
        self._places, self._unit = places, 10**places
        self._step = math.lcm(*multiples)
        self._non_multiples = tuple(non_multiples)
        whole = math.lcm(self._step, *self._non_multiples)
        self._modulus = whole // math.gcd(whole, self._unit)  # of what stands before the point
        self._check_states(self._modulus)
        self._languages: dict[object, Language] = {}
        self._classes = self._equal_remainders()

    def numbers(self, low: int, high: int) -> Language:
        """The numbers low..high without leading zeros, the fraction optional where it is zero; 0 <= low."""
        if low > high:
            return NOTHING
        zero = concat(literal("0"), self._after_integer(low, min(high, self._unit - 1), 0))
        low = max(low, self._unit)
        if low > high:
            return zero
        shortest, longest = len(str(low // self._unit)), len(str(high // self._unit))
        first_full = shortest + (low > self._smallest(shortest))
        last_full = longest - (high < self._smallest(longest + 1) - 1)
        bounded = [length for length in sorted({shortest, longest}) if not first_full <= length <= last_full]
        return union(
            zero,
            *(self._of_length(length, low, high) for length in bounded),
            self._of_lengths(first_full, last_full) if first_full <= last_full else NOTHING,
        )

    def _smallest(self, length: int) -> int:
        """The smallest number with so many digits before the point."""
        smallest: int = 10 ** (length - 1) * self._unit
        return smallest

    def _of_length(self, length: int, low: int, high: int) -> Language:
        low, high = max(low, self._smallest(length)), min(high, self._smallest(length + 1) - 1)
        return self._bounded(low, high, length, 0)

    def _of_lengths(self, shortest: int, longest: int) -> Language:
        self._check_states(longest * len(set(self._classes)))
        rests: defaultdict[Language, str] = defaultdict(str)
        for digit in range(1, 10):
            rests[self._any_digits(shortest - 1, longest - 1, digit)] += str(digit)
        return _by_first_digit(rests)

    def _bounded(self, low: int, high: int, length: int, remainder: int) -> Language:
        """`length` digits before the point and what follows them, together a number low..high."""
        if length == 0:
            return self._after_integer(low, high, remainder * self._unit)
        if low == 0 and high == 10**length * self._unit - 1:
            return self._any_digits(length, length, remainder)
        unit = self._smallest(length)
        rests: defaultdict[Language, str] = defaultdict(str)
        for digit in range(low // unit, high // unit + 1):
            bounds = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)
            rests[self._bounded(*bounds, length - 1, (remainder * 10 + digit) % self._modulus)] += str(digit)
        return _by_first_digit(rests)

    def _any_digits(self, least: int, most: int, remainder: int) -> Language:
        """`least` to `most` digits before the point, and what follows them."""
        if self._modulus == 1:
            return concat(repeat(DIGIT, least, most), self._any_fraction(0))
        remainder %= self._modulus // math.gcd(self._modulus, 10**least)  # no more can make a difference
        key = least, most, remainder if least else self._classes[remainder]
        if key not in self._languages:
            end = self._any_fraction(remainder) if least == 0 else NOTHING
            rests: defaultdict[Language, str] = defaultdict(str)
            for digit in range(10) if most else ():
                rests[self._any_digits(max(0, least - 1), most - 1, remainder * 10 + digit)] += str(digit)
            self._remember(key, union(end, _by_first_digit(rests)))
        return self._languages[key]

    def _equal_remainders(self) -> list[int]:
        """The class of each remainder: in one, the same may follow (Moore 1956)."""
        keys: list[object] = [self._any_fraction(remainder) for remainder in range(self._modulus)]
        classes, count = _numbered(keys), 0
        while count != len(set(classes)):
            count = len(set(classes))
            nexts = (
                [classes[(remainder * 10 + digit) % self._modulus] for digit in range(10)]
                for remainder in range(self._modulus)
            )
            classes = _numbered([(own, *after) for own, after in zip(classes, nexts, strict=True)])
        return classes

    def _any_fraction(self, remainder: int) -> Language:
        return self._after_integer(0, self._unit - 1, remainder * self._unit)

    def _after_integer(self, low: int, high: int, remainder: int) -> Language:
        end = EMPTY_TEXT if low == 0 and self._is_divisible(remainder, self._non_multiples) else NOTHING
        if self._places == 0:
            return end
        return union(end, concat(literal("."), self._fraction(low, high, self._places, remainder, self._non_multiples)))

    def _fraction(self, low: int, high: int, length: int, remainder: int, excluded: tuple[int, ...]) -> Language:
        """One to `length` digits that, filled up with zeros, are a number low..high."""
        excluded = tuple(divisor for divisor in excluded if _next_multiple(divisor, remainder, low) <= high)
        if length == 0 or _next_multiple(self._step, remainder, low) > high:
            return NOTHING
        remainder %= math.lcm(self._step, *excluded)
        if self._step == 1 and not excluded and low == 0 and high == 10**length - 1:
            return repeat(DIGIT, 1, length)
        key = low, high, length, remainder, excluded
        if key not in self._languages:
            unit = 10 ** (length - 1)
            rests: defaultdict[Language, str] = defaultdict(str)
            for digit in range(low // unit, high // unit + 1):
                bounds = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)
                total = remainder + digit * unit
                end = EMPTY_TEXT if bounds[0] == 0 and self._is_divisible(total, excluded) else NOTHING
                rests[union(end, self._fraction(*bounds, length - 1, total, excluded))] += str(digit)
            self._remember(key, _by_first_digit(rests))
        return self._languages[key]

    def _is_divisible(self, number: int, excluded: tuple[int, ...]) -> bool:
        return number % self._step == 0 and all(number % divisor for divisor in excluded)

    def _remember(self, key: object, language: Language) -> None:
        self._check_states(len(self._languages))
        self._languages[key] = language

    def _check_states(self, count: int) -> None:
        if count > MAX_STATES:
            divisors = ", ".join(map(str, (self._step, *self._non_multiples)))
            raise ConstraintError(
                f"multiples of {divisors} in units of 1/{self._unit} need more than {MAX_STATES} states"
            )


def _next_multiple(divisor: int, remainder: int, low: int) -> int:
    """The smallest number from `low` on that, added to the remainder, is a multiple."""
    return low + (-remainder - low) % divisor


def _by_first_digit(rests: dict[Language, str]) -> Language:
    return union(*(concat(characters(CharSet.of(digits)), rest) for rest, digits in rests.items()))


def _numbered(keys: list[object]) -> list[int]:
    """Equal numbers for equal keys."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]

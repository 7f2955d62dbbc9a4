"""Texts in units that marks are made of, tags, brackets, blanks and words, and what two of them have in common."""

from __future__ import annotations

import re
from itertools import takewhile

_UNIT = re.compile(r"<[^<>]*>?|\[/?[A-Z_]+\]|[\s{}\[\](),;]|[^<\s{}\[\](),;]+")


def units(text: str) -> list[str]:
    """The text, cut."""
    return _UNIT.findall(text)


def common_beginning(one: str, other: str) -> str:
    """The longest beginning of both in whole units."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(units(one), units(other), strict=False))
    return "".join(unit for unit, _ in pairs)


def common_end(one: str, other: str) -> str:
    """The longest end of both in whole units."""
    pairs = zip(reversed(units(one)), reversed(units(other)), strict=False)
    found = [unit for unit, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return "".join(reversed(found))


def is_mark(unit: str) -> bool:
    """Whether a unit is a tag, or the beginning of one, or a word in capital letters between brackets."""
    return len(unit) > 2 and (unit.startswith("<") or re.fullmatch(r"\[/?[A-Z_]+\]", unit) is not None)

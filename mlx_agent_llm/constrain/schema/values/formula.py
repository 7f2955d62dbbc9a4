"""Sets of JSON values as formulas, which are expanded into canonical types only where they are met.

So a schema may refer to itself: its types hold formulas for what lies inside a value, and those are expanded later. The
leaves of formulas are made elsewhere: types stand for themselves (types.py), subschemas are read (read/document.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field


class TooManyPartsError(Exception):
    """A union has more parts than anybody can compile; the reader says at which keyword."""


class Formula:
    """A set of JSON values: a leaf, or formulas joined by one of the kinds below."""


@dataclass(frozen=True)
class AllOf(Formula):
    """The values that lie in every part; all values when there is none."""

    parts: tuple[Formula, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(("all", self.parts)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class AnyOf(Formula):
    """The values that lie in one part at least; no value when there is none."""

    parts: tuple[Formula, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(("any", self.parts)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Not(Formula):
    """The values that do not lie in the part."""

    part: Formula


@dataclass(frozen=True)
class Narrowed(Formula):
    """A set that is written in part: values of `narrow` are written, and those beyond `wide` lie surely outside."""

    narrow: Formula
    wide: Formula


@dataclass(frozen=True)
class Widest(Formula):
    """The part with all that may lie in it: of narrowed sets, `wide`."""

    part: Formula


EVERYTHING = AllOf(())
NOTHING = AnyOf(())


def all_of(*parts: Formula) -> Formula:
    """The conjunction, without doubles and as small as it is cheap to make it."""
    flat: dict[Formula, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, AllOf) else (part,)))
    if NOTHING in flat or any(isinstance(part, Not) and part.part in flat for part in flat):
        return NOTHING
    return next(iter(flat)) if len(flat) == 1 else AllOf(tuple(flat))


def any_of(*parts: Formula) -> Formula:
    """The disjunction, without doubles and as small as it is cheap to make it."""
    flat: dict[Formula, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, AnyOf) else (part,)))
    if EVERYTHING in flat:
        return EVERYTHING
    return next(iter(flat)) if len(flat) == 1 else AnyOf(tuple(flat))


def negation(part: Formula) -> Formula:
    """The complement."""
    if isinstance(part, Not):
        return part.part
    if part == EVERYTHING:
        return NOTHING
    return EVERYTHING if part == NOTHING else Not(part)

"""Sets of JSON values as formulas over subschemas, which are expanded into canonical types only where they are met.

So a schema may refer to itself: its types hold formulas for what lies inside a value, and those are expanded later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from referencing._core import Resolver  # what Registry.resolver returns has no public name

    from mlx_agent_llm.constrain.schema.types import TypeSet


class TooManyPartsError(Exception):
    """A union has more parts than anybody can compile; the reader says at which keyword."""


@dataclass(frozen=True, eq=False)
class Subschema:
    """The values that are valid for one schema object; `place` is its JSON pointer."""

    keywords: dict[str, Any]
    resolver: Resolver[Any]
    place: str


@dataclass(frozen=True)
class Typed:
    """The values of a canonical type."""

    types: TypeSet


@dataclass(frozen=True)
class AllOf:
    """The values that lie in every part; all values when there is none."""

    parts: tuple[Formula, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(("all", self.parts)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class AnyOf:
    """The values that lie in one part at least; no value when there is none."""

    parts: tuple[Formula, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(("any", self.parts)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Not:
    """The values that do not lie in the part."""

    part: Formula


Formula = Subschema | Typed | AllOf | AnyOf | Not
EVERYTHING = AllOf(())
NOTHING = AnyOf(())


def all_of(*parts: Formula) -> Formula:
    """Return the conjunction, without doubles and as small as it is cheap to make it."""
    flat: dict[Formula, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, AllOf) else (part,)))
    if NOTHING in flat or any(isinstance(part, Not) and part.part in flat for part in flat):
        return NOTHING
    return next(iter(flat)) if len(flat) == 1 else AllOf(tuple(flat))


def any_of(*parts: Formula) -> Formula:
    """Return the disjunction, without doubles and as small as it is cheap to make it."""
    flat: dict[Formula, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, AnyOf) else (part,)))
    if EVERYTHING in flat:
        return EVERYTHING
    return next(iter(flat)) if len(flat) == 1 else AnyOf(tuple(flat))


def negation(part: Formula) -> Formula:
    """Return the complement."""
    if isinstance(part, Not):
        return part.part
    if part == EVERYTHING:
        return NOTHING
    return EVERYTHING if part == NOTHING else Not(part)

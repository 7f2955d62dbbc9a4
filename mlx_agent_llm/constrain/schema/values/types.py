"""Canonical types: a set of JSON values as one set for each JSON type, with union, intersection and complement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlx_agent_llm.constrain.schema.values.array_type import (
    ANY_ARRAY,
    ArrayType,
    complement_of_arrays,
    intersect_arrays,
)
from mlx_agent_llm.constrain.schema.values.formula import NOTHING, Formula, TooManyPartsError
from mlx_agent_llm.constrain.schema.values.number_type import (
    ANY_NUMBER,
    High,
    Low,
    NumberType,
    complement_of_numbers,
    constant_number,
    intersect_numbers,
)
from mlx_agent_llm.constrain.schema.values.object_type import (
    ANY_OBJECT,
    ObjectType,
    complement_of_objects,
    intersect_objects,
)
from mlx_agent_llm.languages.regular import ANY_TEXT, Language, complement, intersection, literal, union
from mlx_agent_llm.languages.regular import NOTHING as NO_TEXT

# A union of more parts than this is refused: schemas that people write stay far below it.
MAX_PARTS = 2000
MAX_COMPLEMENTED = 64
Part = TypeVar("Part", NumberType, ArrayType, ObjectType)


@dataclass(frozen=True)
class TypeSet:
    """A set of JSON values: of each type those that lie in one of the parts; the language is of decoded text."""

    null: bool = False
    booleans: frozenset[bool] = frozenset()
    numbers: tuple[NumberType, ...] = ()
    strings: Language = NO_TEXT
    arrays: tuple[ArrayType, ...] = ()
    objects: tuple[ObjectType, ...] = ()


@dataclass(frozen=True)
class Typed(Formula):
    """The values of canonical types, as a formula."""

    types: TypeSet


EVERY_TYPE = TypeSet(True, frozenset({True, False}), (ANY_NUMBER,), ANY_TEXT, (ANY_ARRAY,), (ANY_OBJECT,))
NO_TYPE = TypeSet()


def constant_type(value: Any) -> TypeSet:
    """The set of one JSON value."""
    match value:
        case None:
            return TypeSet(null=True)
        case bool():
            return TypeSet(booleans=frozenset({value}))
        case int() | float():
            return TypeSet(numbers=(constant_number(value),))
        case str():
            return TypeSet(strings=literal(value))
        case list():
            items = tuple(Typed(constant_type(item)) for item in value)
            return TypeSet(arrays=(ArrayType(items, NOTHING, len(items), len(items)),))
    named = tuple((name, Typed(constant_type(item))) for name, item in value.items())
    return TypeSet(objects=(ObjectType(named, frozenset(value), ((ANY_TEXT, NOTHING),)),))


def constants_type(values: Sequence[Any]) -> TypeSet:
    """The set of these JSON values."""
    types = [constant_type(value) for value in values if not isinstance(value, str)]
    strings = [literal(value) for value in values if isinstance(value, str)]
    return union_of_types([*types, TypeSet(strings=union(*strings))])


def union_of_types(types: Sequence[TypeSet]) -> TypeSet:
    """The values of any of the sets."""
    if len(types) == 1:
        return types[0]
    return TypeSet(
        any(one.null for one in types),
        frozenset().union(*(one.booleans for one in types)),
        _joined([part for one in types for part in one.numbers], ANY_NUMBER),
        union(*(one.strings for one in types)),
        _joined([part for one in types for part in one.arrays], ANY_ARRAY),
        _joined([part for one in types for part in one.objects], ANY_OBJECT),
    )


def intersection_of_types(one: TypeSet, other: TypeSet) -> TypeSet:
    """The values of both sets."""
    if one is EVERY_TYPE or other is EVERY_TYPE:
        return other if one is EVERY_TYPE else one
    return TypeSet(
        one.null and other.null,
        one.booleans & other.booleans,
        _met(one.numbers, other.numbers, intersect_numbers, ANY_NUMBER),
        _met_strings(one.strings, other.strings),
        _met(one.arrays, other.arrays, intersect_arrays, ANY_ARRAY),
        _met(one.objects, other.objects, intersect_objects, ANY_OBJECT),
    )


def complement_of_type(types: TypeSet) -> TypeSet:
    """All other values."""
    return TypeSet(
        not types.null,
        EVERY_TYPE.booleans - types.booleans,
        _without_numbers(types.numbers),
        complement(types.strings),
        _without(types.arrays, complement_of_arrays, intersect_arrays, ANY_ARRAY),
        _without(types.objects, complement_of_objects, intersect_objects, ANY_OBJECT),
    )


def _joined(parts: list[Part], everything: Part) -> tuple[Part, ...]:
    if everything in parts:
        return (everything,)
    if len(parts) > MAX_PARTS:
        raise TooManyPartsError
    return tuple(dict.fromkeys(parts))


def _met(
    one: tuple[Part, ...], other: tuple[Part, ...], intersect: Callable[[Part, Part], Part | None], everything: Part
) -> tuple[Part, ...]:
    if not one or not other or one == other:
        return one if not one or one == other else other
    if len(one) * len(other) > MAX_PARTS:
        raise TooManyPartsError
    both = [intersect(mine, theirs) for mine in one for theirs in other]
    return _joined([part for part in both if part is not None], everything)


def _met_strings(one: Language, other: Language) -> Language:
    if one is ANY_TEXT or other is ANY_TEXT:
        return other if one is ANY_TEXT else one
    return intersection(one, other)


def _without_numbers(numbers: tuple[NumberType, ...]) -> tuple[NumberType, ...]:
    """The intervals between the constants, met with what the other parts leave."""
    constants = sorted({part.constant for part in numbers if part.constant is not None})
    lows = [None, *(Low(value, True) for value in constants)]
    highs = [*(High(value, False) for value in constants), None]
    intervals = tuple(NumberType(low, high) for low, high in zip(lows, highs, strict=True))
    others = tuple(part for part in numbers if part.constant is None)
    return _met(
        intervals, _without(others, complement_of_numbers, intersect_numbers, ANY_NUMBER), intersect_numbers, ANY_NUMBER
    )


def _without(
    parts: tuple[Part, ...],
    complement_of: Callable[[Part], list[Part]],
    intersect: Callable[[Part, Part], Part | None],
    everything: Part,
) -> tuple[Part, ...]:
    rest: tuple[Part, ...] = (everything,)
    if len(parts) > MAX_COMPLEMENTED:
        raise TooManyPartsError
    for part in parts:
        rest = _met(rest, tuple(complement_of(part)), intersect, everything)
    return rest

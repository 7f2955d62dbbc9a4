"""Sets of arrays as one conjunction: what stands at which index, how many items, which of them how often."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, Formula, all_of, negation


@dataclass(frozen=True)
class Containment:
    """From the index `start` on, `least` to `most` items lie in `formula`; most=None is without end."""

    formula: Formula
    least: int = 1
    most: int | None = None
    start: int = 0


@dataclass(frozen=True)
class ArrayType:
    """Arrays by the formulas of the first items and of all others, the number of items and what they contain.

    unique: True where no two items are equal, False where two are, None for both. pointer: of the first schema that
    asked for something, for errors.
    """

    prefix: tuple[Formula, ...] = ()
    items: Formula = EVERYTHING
    least: int = 0
    most: int | None = None
    contains: tuple[Containment, ...] = ()
    unique: bool | None = None
    pointer: str = field(default="", compare=False)

    def item(self, index: int) -> Formula:
        """The formula of the item at an index."""
        return self.prefix[index] if index < len(self.prefix) else self.items


ANY_ARRAY = ArrayType()


def intersect_arrays(one: ArrayType, other: ArrayType) -> ArrayType | None:
    """The arrays of both, None when it is plain that there are none."""
    if one == ANY_ARRAY or other == ANY_ARRAY:
        return other if one == ANY_ARRAY else one
    if None not in (one.unique, other.unique) and one.unique != other.unique:
        return None
    length = max(len(one.prefix), len(other.prefix))
    both = ArrayType(
        tuple(all_of(one.item(index), other.item(index)) for index in range(length)),
        all_of(one.items, other.items),
        max(one.least, other.least),
        min((most for most in (one.most, other.most) if most is not None), default=None),
        tuple(dict.fromkeys(one.contains + other.contains)),
        other.unique if one.unique is None else one.unique,
        one.pointer or other.pointer,
    )
    return both if both.most is None or both.least <= both.most else None


def complement_of_arrays(arrays: ArrayType) -> list[ArrayType]:
    """Types that together hold every other array."""
    result = []
    for index, formula in enumerate(arrays.prefix):
        if formula != EVERYTHING:
            prefix = (EVERYTHING,) * index + (negation(formula),)
            result.append(ArrayType(prefix, least=index + 1))
    if arrays.items != EVERYTHING:
        result.append(ArrayType(contains=(Containment(negation(arrays.items), start=len(arrays.prefix)),)))
    if arrays.least > 0:
        result.append(ArrayType(most=arrays.least - 1))
    if arrays.most is not None:
        result.append(ArrayType(least=arrays.most + 1))
    for part in arrays.contains:
        result += [ArrayType(contains=(other,)) for other in _complement_of(part)]
    if arrays.unique is not None:
        result.append(ArrayType(unique=not arrays.unique))
    return [replace(one, pointer=arrays.pointer) for one in result]


def _complement_of(part: Containment) -> list[Containment]:
    result = []
    if part.least > 0:
        result.append(Containment(part.formula, 0, part.least - 1, part.start))
    if part.most is not None:
        result.append(Containment(part.formula, part.most + 1, None, part.start))
    return result

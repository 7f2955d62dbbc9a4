"""Sets of objects as one conjunction: the values by name, the names that must be there, and how many."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_agent_llm.constrain.schema.values.formula import (
    EVERYTHING,
    NOTHING,
    Formula,
    TooManyPartsError,
    all_of,
    negation,
)
from mlx_agent_llm.languages.regular import ANY_TEXT, Language, complement, intersection, literal, union

MAX_REGIONS = 16
Region = tuple[Language, Formula]
ALL_NAMES: tuple[Region, ...] = ((ANY_TEXT, EVERYTHING),)


@dataclass(frozen=True)
class ObjectType:
    """Objects by the formulas of named properties and of all others, and the number of properties.

    others: disjoint languages of names, together all, with the formula of the values; they do not speak of the named
    properties. witnesses: languages of names; for each, one property of such a name has a value in the formula.
    declares: whether a schema lists the properties; where it is silent about all others, they are not written.
    pointer: the JSON pointer of the first schema that asked for something, for errors.
    """

    named: tuple[tuple[str, Formula], ...] = ()
    required: frozenset[str] = frozenset()
    others: tuple[Region, ...] = ALL_NAMES
    least: int = 0
    most: int | None = None
    witnesses: tuple[Region, ...] = ()
    declares: bool = False
    pointer: str = field(default="", compare=False)

    def value(self, name: str) -> Formula:
        """The formula of the value of a property that is not named."""
        return next((formula for language, formula in self.others if language.matches(name)), NOTHING)


ANY_OBJECT = ObjectType()


def regions_by_pattern(patterns: list[Region], rest: Formula) -> tuple[Region, ...]:
    """Disjoint languages for patterns that may overlap; names that match no pattern have `rest`.

    Raises TooManyPartsError.
    """
    parts: list[tuple[Language, list[Formula]]] = [(ANY_TEXT, [])]
    for pattern, formula in patterns:
        within = [(intersection(part, pattern), [*formulas, formula]) for part, formulas in parts]
        outside = [(intersection(part, complement(pattern)), formulas) for part, formulas in parts]
        parts = [(language, formulas) for language, formulas in within + outside if not language.is_empty()]
        if len(parts) > MAX_REGIONS:
            raise TooManyPartsError
    return _merged([(language, all_of(*formulas) if formulas else rest) for language, formulas in parts])


def intersect_objects(one: ObjectType, other: ObjectType) -> ObjectType | None:
    """The objects of both, None when it is plain that there are none."""
    if one == ANY_OBJECT or other == ANY_OBJECT:
        return other if one == ANY_OBJECT else one
    mine, theirs = dict(one.named), dict(other.named)
    named = []
    for name in mine | theirs:
        first = mine[name] if name in mine else one.value(name)
        named.append((name, all_of(first, theirs[name] if name in theirs else other.value(name))))
    required = one.required | other.required
    most = min((most for most in (one.most, other.most) if most is not None), default=None)
    least = max(one.least, other.least)
    if any(formula == NOTHING and name in required for name, formula in named):
        return None
    if most is not None and max(least, len(required)) > most:
        return None
    witnesses = tuple(dict.fromkeys(one.witnesses + other.witnesses))
    others = _intersect_regions(one.others, other.others)
    declares, pointer = one.declares or other.declares, one.pointer or other.pointer
    return ObjectType(tuple(named), required, others, least, most, witnesses, declares, pointer)


def complement_of_objects(objects: ObjectType) -> list[ObjectType]:
    """Types that together hold every other object."""
    pointer = objects.pointer
    result = []
    for name, formula in objects.named:
        if formula != EVERYTHING:
            result.append(ObjectType(((name, negation(formula)),), frozenset({name}), pointer=pointer))
    for name in sorted(objects.required):
        result.append(ObjectType(((name, NOTHING),), pointer=pointer))
    for language, formula in objects.others:
        if formula != EVERYTHING:
            names = without_names(language, [name for name, _ in objects.named])
            result.append(ObjectType(witnesses=((names, negation(formula)),), pointer=pointer))
    if objects.least > 0:
        result.append(ObjectType(most=objects.least - 1, pointer=pointer))
    if objects.most is not None:
        result.append(ObjectType(least=objects.most + 1, pointer=pointer))
    for language, formula in objects.witnesses:
        result.append(
            ObjectType(others=regions_by_pattern([(language, negation(formula))], EVERYTHING), pointer=pointer)
        )
    return result


def without_names(language: Language, names: list[str]) -> Language:
    """The language without these texts."""
    held = [name for name in names if language.matches(name)]
    return intersection(language, complement(union(*map(literal, held)))) if held else language


def _intersect_regions(one: tuple[Region, ...], other: tuple[Region, ...]) -> tuple[Region, ...]:
    if one == ALL_NAMES or other == ALL_NAMES:
        return other if one == ALL_NAMES else one
    both = [(intersection(mine, theirs), all_of(a, b)) for mine, a in one for theirs, b in other]
    return _merged([(language, formula) for language, formula in both if not language.is_empty()])


def _merged(regions: list[Region]) -> tuple[Region, ...]:
    """The regions with one language a formula."""
    languages: dict[Formula, Language] = {}
    for language, formula in regions:
        languages[formula] = union(languages[formula], language) if formula in languages else language
    if len(languages) == 1:
        return ((ANY_TEXT, next(iter(languages))),)
    return tuple((language, formula) for formula, language in languages.items())

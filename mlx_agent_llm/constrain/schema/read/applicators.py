"""Keywords that combine schemas for the same value: references, all, any or one of them, conditions."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from mlx_agent_llm.constrain.schema.read.containers import required, without
from mlx_agent_llm.constrain.schema.read.document import Subschema
from mlx_agent_llm.constrain.schema.read.finite_values import finite_values
from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.formula import (
    EVERYTHING,
    Formula,
    Narrowed,
    Widest,
    all_of,
    any_of,
    negation,
)
from mlx_agent_llm.constrain.schema.values.json_text import canonical_json
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE, NO_TYPE, Typed, TypeSet

MAX_TAGS = 8
_OBJECTS = Typed(TypeSet(objects=EVERY_TYPE.objects))


def read_ref(reader: SchemaReader, subschema: Subschema) -> Formula:
    """What the reference names."""
    return reader.document.follow(subschema, "$ref")


def read_dynamic_ref(reader: SchemaReader, subschema: Subschema) -> Formula:
    """What the reference names, where that does not depend on the references before it."""
    return reader.document.follow(subschema, "$dynamicRef")


def read_recursive_ref(reader: SchemaReader, subschema: Subschema) -> Formula:
    """What the reference names, where that does not depend on the references before it."""
    return reader.document.follow(subschema, "$recursiveRef")


def branches_of(reader: SchemaReader, subschema: Subschema, keyword: str) -> list[Formula]:
    """The formulas of a keyword that is a list of schemas."""
    return [reader.document.child(subschema, keyword, index) for index in range(len(subschema.keywords[keyword]))]


def read_all_of(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The conjunction."""
    return all_of(*branches_of(reader, subschema, "allOf"))


def read_any_of(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The disjunction."""
    return any_of(*branches_of(reader, subschema, "anyOf"))


def read_one_of(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The values of exactly one branch; where a `discriminator` says by which property they differ, it is written."""
    tag = subschema.keywords.get("discriminator", {}).get("propertyName")
    if not isinstance(tag, str):
        return any_of(*exclusive_branches(reader, subschema))
    kept = {keyword: value for keyword, value in subschema.keywords.items() if keyword in ("type", "oneOf")}
    narrow = any_of(*exclusive_branches(reader, subschema, required([tag], subschema.pointer)))
    return Narrowed(all_of(_OBJECTS, narrow), reader.document.part(subschema, kept))


def exclusive_branches(reader: SchemaReader, subschema: Subschema, kept: Formula = EVERYTHING) -> list[Formula]:
    """Each branch of oneOf, of its values those in `kept`, without the values of the branches that overlap with it.

    A type beside oneOf is a part of each branch: without it, objects that are told apart by a property would overlap,
    because they are valid for anything else too.
    """
    types = {keyword: value for keyword, value in subschema.keywords.items() if keyword == "type"}
    kind = reader.document.part(subschema, types) if types else EVERYTHING
    whole = [all_of(kind, branch) for branch in branches_of(reader, subschema, "oneOf")]
    branches = [all_of(branch, kept) for branch in whole]
    overlapping: list[list[Formula]] = [[] for _ in branches]
    required_tags, tags = [_tags(reader, branch, True) for branch in branches], [_tags(reader, one) for one in whole]
    for one, other in permutations(range(len(branches)), 2):
        is_told_apart = any(
            values.isdisjoint(tags[other][name]) for name, values in required_tags[one].items() if name in tags[other]
        )
        if not is_told_apart and not reader.is_surely_empty(all_of(branches[one], Widest(whole[other]))):
            overlapping[one].append(whole[other])
    return [all_of(branch, *map(negation, others)) for branch, others in zip(branches, overlapping, strict=True)]


def _tags(reader: SchemaReader, branch: Formula, required: bool = False) -> dict[str, set[str]]:
    """The few values of properties by which an object may be told to be of a branch, which has objects alone.

    This is a short cut for many branches, of which all pairs are compared. required: of properties that must be there.
    """
    types = reader.types(branch, upper=required)
    if len(types.objects) != 1 or replace(types, objects=()) != NO_TYPE:
        return {}
    found = {}
    for name, formula in types.objects[0].named:
        is_told = name in types.objects[0].required or not required
        values = finite_values(reader, formula, MAX_TAGS) if is_told else None
        if values is not None:
            found[name] = {canonical_json(value) for value in values}
    return found


def read_not(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The complement."""
    return negation(reader.document.child(subschema, "not"))


def read_if(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The values of `if` that lie in `then`, and all others that lie in `else`."""
    condition = reader.document.child(subschema, "if")
    consequence = reader.document.child(subschema, "then") if "then" in subschema.keywords else EVERYTHING
    otherwise = reader.document.child(subschema, "else") if "else" in subschema.keywords else EVERYTHING
    if consequence == otherwise:
        return consequence
    return any_of(all_of(condition, consequence), all_of(negation(condition), otherwise))


def read_dependent_schemas(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects that are of a schema where they have the property that it depends on."""
    return all_of(
        *(
            depends_on(name, reader.document.child(subschema, "dependentSchemas", name), subschema.pointer)
            for name in subschema.keywords["dependentSchemas"]
        )
    )


def read_dependent_required(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects that have some properties where they have the one that asks for them."""
    pointer = subschema.pointer
    dependencies = subschema.keywords["dependentRequired"].items()
    return all_of(*(depends_on(name, required(names, pointer), pointer) for name, names in dependencies))


def read_dependencies(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The conjunction of draft 7's dependencies, which are schemas or names of properties."""
    pointer = subschema.pointer
    parts = []
    for name, value in subschema.keywords["dependencies"].items():
        is_names = isinstance(value, list)
        schema = required(value, pointer) if is_names else reader.document.child(subschema, "dependencies", name)
        parts.append(depends_on(name, schema, pointer))
    return all_of(*parts)


def depends_on(name: str, schema: Formula, pointer: str) -> Formula:
    """The values that lie in a formula if they are objects with a property of this name."""
    return any_of(without(name, pointer), all_of(required([name], pointer), schema))

"""Keywords about what lies inside an array or an object."""

from __future__ import annotations

from dataclasses import replace

from mlx_agent_llm.constrain.schema.read.assertions import language_of_pattern
from mlx_agent_llm.constrain.schema.read.document import Subschema
from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType, Containment
from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, NOTHING, Formula
from mlx_agent_llm.constrain.schema.values.object_type import ObjectType, Region, regions_by_pattern
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE, Typed
from mlx_agent_llm.errors import UnsupportedSchemaError
from mlx_agent_llm.languages.regular import Language, complement


def read_prefix_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays whose first items are of these schemas, one each."""
    return _prefix(reader, subschema, "prefixItems")


def read_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays whose items after the prefix are of one schema; in draft 7 a list is the prefix."""
    if isinstance(subschema.keywords["items"], list):
        return _prefix(reader, subschema, "items")
    return _rest(reader, subschema, "items", len(subschema.keywords.get("prefixItems", ())))


def read_additional_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays whose items after draft 7's list are of one schema."""
    prefix = subschema.keywords.get("items")
    return _rest(reader, subschema, "additionalItems", len(prefix)) if isinstance(prefix, list) else EVERYTHING


def read_contains(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays that hold so many items of a schema, at least one unless it says otherwise."""
    least, most = subschema.keywords.get("minContains", 1), subschema.keywords.get("maxContains")
    part = Containment(reader.document.child(subschema, "contains"), int(least), None if most is None else int(most))
    return _arrays(ArrayType(contains=(part,), pointer=subschema.pointer))


def read_min_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays of so many items or more."""
    return _arrays(ArrayType(least=int(subschema.keywords["minItems"]), pointer=subschema.pointer))


def read_max_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays of so many items or fewer."""
    return _arrays(ArrayType(most=int(subschema.keywords["maxItems"]), pointer=subschema.pointer))


def read_unique_items(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The arrays without two equal items."""
    if not subschema.keywords["uniqueItems"]:
        return EVERYTHING
    return _arrays(ArrayType(unique=True, pointer=subschema.pointer))


def read_properties(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects whose properties of these names are of their schemas."""
    named = tuple((name, reader.document.child(subschema, "properties", name)) for name in _names(subschema))
    return _objects(ObjectType(named, declares=True, pointer=subschema.pointer))


def read_pattern_properties(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects whose properties with names of these patterns are of their schemas."""
    regions = [
        (language, _spoken(reader.document.child(subschema, "patternProperties", pattern)))
        for pattern, language in patterns_of(subschema).items()
    ]
    return _objects(ObjectType(others=regions_by_pattern(regions, EVERYTHING), pointer=subschema.pointer))


def read_additional_properties(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects whose properties beside the named ones and those of patterns are of one schema."""
    rest = _spoken(reader.document.child(subschema, "additionalProperties"))
    patterns: list[Region] = [(language, EVERYTHING) for language in patterns_of(subschema).values()]
    named = tuple((name, EVERYTHING) for name in _names(subschema))
    return _objects(ObjectType(named, others=regions_by_pattern(patterns, rest), pointer=subschema.pointer))


def read_property_names(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects whose names, as strings, are of one schema."""
    schema = reader.document.child(subschema, "propertyNames")
    names = reader.types(schema).strings
    if not reader.is_strict and names is not reader.types(schema, upper=False).strings:
        raise UnsupportedSchemaError(subschema.pointer, "propertyNames", "its own schema is not enforced")
    return _objects(
        ObjectType(others=regions_by_pattern([(complement(names), NOTHING)], EVERYTHING), pointer=subschema.pointer)
    )


def read_required(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects that have these properties."""
    return required(subschema.keywords["required"], subschema.pointer)


def read_min_properties(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects of so many properties or more."""
    return _objects(ObjectType(least=int(subschema.keywords["minProperties"]), pointer=subschema.pointer))


def read_max_properties(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The objects of so many properties or fewer."""
    return _objects(ObjectType(most=int(subschema.keywords["maxProperties"]), pointer=subschema.pointer))


def required(names: list[str], pointer: str) -> Formula:
    """The objects that have all these properties, and all other types."""
    return _objects(ObjectType(tuple((name, EVERYTHING) for name in names), frozenset(names), pointer=pointer))


def without(name: str, pointer: str) -> Formula:
    """The objects that have no property of this name, and all other types."""
    return _objects(ObjectType(((name, NOTHING),), pointer=pointer))


def patterns_of(subschema: Subschema) -> dict[str, Language]:
    """The languages of the names that `patternProperties` speaks of."""
    patterns = subschema.keywords.get("patternProperties", {})
    return {pattern: language_of_pattern(subschema, "patternProperties", pattern) for pattern in patterns}


def rest_of_items(prefix_length: int, rest: Formula, pointer: str) -> Formula:
    """The arrays whose items after the first ones lie in a formula, and all other types."""
    return _arrays(ArrayType((EVERYTHING,) * prefix_length, rest, pointer=pointer))


def rest_of_properties(names: Language, rest: Formula, pointer: str) -> Formula:
    """The objects whose properties lie in a formula unless their names are in a language, and other types."""
    return _objects(ObjectType(others=regions_by_pattern([(names, EVERYTHING)], _spoken(rest)), pointer=pointer))


def _spoken(formula: Formula) -> Formula:
    """The same values; but a schema that allows all of them is not the same as silence."""
    return Typed(EVERY_TYPE) if formula == EVERYTHING else formula


def _names(subschema: Subschema) -> list[str]:
    return list(subschema.keywords.get("properties", ()))


def _prefix(reader: SchemaReader, subschema: Subschema, keyword: str) -> Formula:
    count = len(subschema.keywords[keyword])
    items = tuple(reader.document.child(subschema, keyword, index) for index in range(count))
    return _arrays(ArrayType(items, pointer=subschema.pointer))


def _rest(reader: SchemaReader, subschema: Subschema, keyword: str, prefix_length: int) -> Formula:
    return rest_of_items(prefix_length, reader.document.child(subschema, keyword), subschema.pointer)


def _arrays(arrays: ArrayType) -> Formula:
    return Typed(replace(EVERY_TYPE, arrays=(arrays,)))


def _objects(objects: ObjectType) -> Formula:
    return Typed(replace(EVERY_TYPE, objects=(objects,)))

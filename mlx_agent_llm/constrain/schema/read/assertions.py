"""Keywords about one value: its type, constants, bounds and text."""

from __future__ import annotations

from dataclasses import replace

from mlx_agent_llm.constrain.schema.read.document import Subschema
from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.formats import (
    NUMBER_FORMATS,
    STRING_FORMATS,
    language_of_format,
    widest_language_of_format,
)
from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, Formula, Narrowed
from mlx_agent_llm.constrain.schema.values.number_type import High, Low, NumberType, multiples_of
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE, Typed, TypeSet, constants_type, union_of_types
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.languages.regex import parse_regex
from mlx_agent_llm.languages.regular import Language, characters, repeat
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER
from mlx_agent_llm.request.schema_dialect import DRAFT_3_ALONE

TYPES_BY_NAME = {
    "null": TypeSet(null=True),
    "boolean": TypeSet(booleans=EVERY_TYPE.booleans),
    "integer": TypeSet(numbers=(NumberType(is_integer=True),)),
    "number": TypeSet(numbers=EVERY_TYPE.numbers),
    "string": TypeSet(strings=EVERY_TYPE.strings),
    "array": TypeSet(arrays=EVERY_TYPE.arrays),
    "object": TypeSet(objects=EVERY_TYPE.objects),
}


def read_type(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The values of the types that are named."""
    names = subschema.keywords["type"]
    types = [TYPES_BY_NAME[name] for name in ([names] if isinstance(names, str) else names)]
    return Typed(union_of_types([*types, TypeSet(null=True)] if subschema.keywords.get("nullable") else types))


def refuse_draft_3(reader: SchemaReader, subschema: Subschema) -> Formula:
    """Keywords that only draft 3 has are refused."""
    keyword = next(keyword for keyword in DRAFT_3_ALONE if keyword in subschema.keywords)
    raise UnsupportedSchemaError(subschema.pointer, keyword, "draft 3 is read where it agrees with draft 4")


def read_const(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The one value."""
    return Typed(constants_type([subschema.keywords["const"]]))


def read_enum(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The values of the list."""
    return Typed(constants_type(subschema.keywords["enum"]))


def read_minimum(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The numbers from a bound on, and all other types."""
    is_open = subschema.keywords.get("exclusiveMinimum") is True
    return _numbers(subschema, NumberType(low=Low(subschema.keywords["minimum"], is_open)))


def read_exclusive_minimum(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The numbers above a bound, and all other types; a boolean is read with `minimum`."""
    if isinstance(subschema.keywords["exclusiveMinimum"], bool):
        return EVERYTHING
    return _numbers(subschema, NumberType(low=Low(subschema.keywords["exclusiveMinimum"], True)))


def read_maximum(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The numbers up to a bound, and all other types."""
    is_closed = subschema.keywords.get("exclusiveMaximum") is not True
    return _numbers(subschema, NumberType(high=High(subschema.keywords["maximum"], is_closed)))


def read_exclusive_maximum(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The numbers below a bound, and all other types; a boolean is read with `maximum`."""
    if isinstance(subschema.keywords["exclusiveMaximum"], bool):
        return EVERYTHING
    return _numbers(subschema, NumberType(high=High(subschema.keywords["exclusiveMaximum"], False)))


def read_multiple_of(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The multiples of a number, and all other types."""
    return _numbers(subschema, multiples_of(subschema.keywords["multipleOf"]))


def read_min_length(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The strings of so many characters or more, and all other types."""
    return _strings(repeat(characters(ANY_CHARACTER), int(subschema.keywords["minLength"])))


def read_max_length(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The strings of so many characters or fewer, and all other types."""
    return _strings(repeat(characters(ANY_CHARACTER), 0, int(subschema.keywords["maxLength"])))


def read_pattern(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The strings in which the pattern is found, and all other types."""
    return _strings(language_of_pattern(subschema, "pattern", subschema.keywords["pattern"]))


def read_format(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The strings or numbers of a format, and all other types; a format that nobody knows is an annotation."""
    name = subschema.keywords["format"]
    if name in NUMBER_FORMATS:
        return _numbers(subschema, NUMBER_FORMATS[name])
    if name not in STRING_FORMATS:
        return EVERYTHING
    return Narrowed(_strings(language_of_format(name)), _strings(widest_language_of_format(name)))


def language_of_pattern(subschema: Subschema, keyword: str, pattern: str) -> Language:
    """The texts in which a regular expression is found; raises for one that is not regular."""
    try:
        return parse_regex(pattern)
    except ConstraintError as error:
        raise UnsupportedSchemaError(subschema.pointer, keyword, str(error)) from None


def _numbers(subschema: Subschema, numbers: NumberType) -> Formula:
    return Typed(replace(EVERY_TYPE, numbers=(replace(numbers, pointer=subschema.pointer),)))


def _strings(language: Language) -> Formula:
    return Typed(replace(EVERY_TYPE, strings=language))

"""The form that the value of each keyword must have, and keywords that are not what they seem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_agent_llm.constrain.schema.read.document import Subschema
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.schema_dialect import UNSAYABLE, Dialect, json_pointer, near_miss

MAX_TEXT = 10_000  # characters: a language is made of them one by one
_OF_TEXTS = frozenset(("const", "enum", "pattern", "required", "dependentRequired"))
_OF_NAMES = frozenset(("properties", "patternProperties", "dependentSchemas", "dependencies"))
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len(set(value)) == len(value)


def _is_type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _is_names(value) and bool(value) and set(value) <= set(TYPES)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _is_schema_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


Form = tuple[Callable[[Any], bool], str]
_SCHEMA: Form = _is_schema, "a schema"
_SCHEMAS: Form = _is_schemas, "a non-empty list of schemas"
_SCHEMA_MAP: Form = _is_schema_map, "an object of schemas"
_COUNT: Form = _is_count, "a non-negative integer"
_NUMBER: Form = _is_number, "a number"
_TEXT: Form = (lambda value: isinstance(value, str)), "a string"
_LIST: Form = (lambda value: isinstance(value, list)), "a list"
_BOOLEAN: Form = (lambda value: isinstance(value, bool)), "a boolean"
_ANYTHING: Form = (lambda value: True), "a value"

FORMS: dict[str, Form] = {
    "type": (_is_type, f"one or several of {', '.join(TYPES)}"),
    "enum": _LIST,
    "const": _ANYTHING,
    "multipleOf": ((lambda value: _is_number(value) and value > 0), "a number above 0"),
    "discriminator": ((lambda value: isinstance(value, dict)), "an object"),
    "required": (_is_names, "a list of different strings"),
    "dependentRequired": (
        (lambda value: isinstance(value, dict) and all(map(_is_names, value.values()))),
        "an object of lists of different strings",
    ),
    "dependencies": (
        (lambda value: isinstance(value, dict) and all(_is_schema(one) or _is_names(one) for one in value.values())),
        "an object of schemas or of lists of different strings",
    ),
    "items": ((lambda value: _is_schema(value) or _is_schemas(value) or value == []), "a schema or a list of schemas"),
    **dict.fromkeys(("minimum", "maximum"), _NUMBER),
    **dict.fromkeys(("uniqueItems", "nullable"), _BOOLEAN),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("pattern", "format", "$ref", "$dynamicRef", "$recursiveRef"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), _SCHEMA_MAP),
    **dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties"), _SCHEMA),
    **dict.fromkeys(("additionalItems", "unevaluatedItems", "unevaluatedProperties"), _SCHEMA),
}


def check_form(subschema: Subschema) -> None:
    """Raise a ConstraintError for a keyword whose value has not the form that its dialect asks for."""
    for keyword, value in subschema.keywords.items():
        is_valid, form = _form(keyword, subschema.dialect)
        if not is_valid(value):
            where = subschema.pointer + json_pointer(keyword)
            is_old = keyword == "items" and isinstance(value, list)
            hint = " (a list of schemas is of older drafts, which $schema must say)" if is_old else ""
            raise ConstraintError(f"schema{where} is not valid JSON Schema: {value!r:.80} must be {form}{hint}")


def misread_keywords(subschema: Subschema) -> Iterator[UnsupportedSchemaError]:
    """An error for each keyword that no dialect has but that is no annotation: a slip, or what no schema can say."""
    for keyword, value in subschema.others.items():
        if keyword.startswith(UNSAYABLE):
            yield UnsupportedSchemaError(subschema.pointer, keyword.removeprefix(UNSAYABLE), str(value))
        elif (meant := near_miss(keyword, subschema.dialect)) is not None:
            reason = f"no keyword of this name is known: did you mean {meant!r}?"
            yield UnsupportedSchemaError(subschema.pointer, keyword, reason)


def check_texts(subschema: Subschema, keyword: str) -> None:
    """UnsupportedSchemaError where a keyword names a text of more than MAX_TEXT characters."""
    if keyword not in _OF_TEXTS and keyword not in _OF_NAMES:
        return
    value = subschema.keywords[keyword]
    longest = max((len(text) for text in (_texts_in(value) if keyword in _OF_TEXTS else value)), default=0)
    if longest > MAX_TEXT:
        reason = f"a text of {longest} characters is longer than {MAX_TEXT}"
        raise UnsupportedSchemaError(subschema.pointer, keyword, reason)


def _texts_in(value: Any) -> Iterator[str]:
    """All strings and names within a JSON value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _form(keyword: str, dialect: Dialect) -> Form:
    if keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        return _BOUNDS[dialect.bounds]
    return _SCHEMA if keyword == "items" and not dialect.has_lists else FORMS.get(keyword, _ANYTHING)


_BOUNDS: dict[tuple[type, ...], Form] = {
    (bool,): _BOOLEAN,
    (int, float): _NUMBER,
    (bool, int, float): ((lambda value: isinstance(value, bool) or _is_number(value)), "a number or a boolean"),
}

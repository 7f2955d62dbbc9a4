"""The keywords of the two dialects, and the form that the value of each must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_agent_llm.constrain.schema.read.document import Subschema, json_pointer
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.model_schema import UNSAYABLE

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# Keywords that say nothing about a value, or only name schemas; `discriminator` is OpenAPI's hint beside a oneOf.
ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly contentMediaType contentEncoding contentSchema "
    "discriminator $comment $schema $id $anchor $dynamicAnchor $vocabulary $defs definitions".split()
)
ONLY_2020_12 = frozenset(
    "prefixItems minContains maxContains dependentRequired dependentSchemas unevaluatedItems unevaluatedProperties "
    "$dynamicRef".split()
)
ONLY_DRAFT_7 = frozenset({"additionalItems", "dependencies"})


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
    "uniqueItems": _BOOLEAN,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("pattern", "format", "$ref", "$dynamicRef"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), _SCHEMA_MAP),
    **dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties"), _SCHEMA),
    **dict.fromkeys(("additionalItems", "unevaluatedItems", "unevaluatedProperties"), _SCHEMA),
}


def check_form(subschema: Subschema, is_draft7: bool) -> None:
    """Raise a ConstraintError for a keyword whose value has not the form that JSON Schema asks for."""
    for keyword, value in subschema.keywords.items():
        is_valid, form = FORMS.get(keyword, _ANYTHING)
        if not is_valid(value) or (keyword == "items" and isinstance(value, list) and not is_draft7):
            where = subschema.pointer + json_pointer(keyword)
            hint = " (a list of schemas is draft 7, which $schema must say)" if keyword == "items" else ""
            raise ConstraintError(f"schema{where} is not valid JSON Schema: {value!r:.80} must be {form}{hint}")


def unknown_keywords(subschema: Subschema, is_draft7: bool) -> list[UnsupportedSchemaError]:
    """An error for each keyword that the dialect does not define: it may be a slip, and nothing enforces it."""
    known = FORMS.keys() - (ONLY_2020_12 if is_draft7 else ONLY_DRAFT_7) | ANNOTATIONS
    return [
        UnsupportedSchemaError(subschema.pointer, keyword.removeprefix(UNSAYABLE), _why_refused(keyword, value))
        for keyword, value in subschema.keywords.items()
        if keyword not in known and not keyword.startswith("x-")
    ]


def _why_refused(keyword: str, value: Any) -> str:
    return str(value) if keyword.startswith(UNSAYABLE) else "no keyword of this name is known"

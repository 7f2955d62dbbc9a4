"""The leaves of a JSON Schema: types, constants and number bounds, read the same way by preflight and grammar."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from mlx_agent_llm.constrain.number_ranges import Bounds


def kinds_of(schema: dict[str, Any]) -> list[str]:
    """Return the types of a schema as a list; ["any"] when it names none."""
    kinds = schema.get("type", "any")
    return [kinds] if isinstance(kinds, str) else list(kinds)


def allowed_values(schema: dict[str, Any]) -> list[Any]:
    """Return the values of `const` or `enum` that the schema's `type` allows too."""
    values = [schema["const"]] if "const" in schema else schema["enum"]
    if "type" not in schema:
        return list(values)
    typed = Draft202012Validator({"type": schema["type"]})
    return [value for value in values if typed.is_valid(value)]


def bounds_of(schema: dict[str, Any]) -> Bounds:
    """Return the four number bounds of a schema."""
    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    return Bounds(*(schema.get(name) for name in names))


def write_json(value: Any) -> str:
    """Return a value as the grammars write it: on one line, separators ", " and ": ", characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

"""The JSON that a reply must be, and its reading once the reply is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request.constraints import JSONSchema


class Parsed(NamedTuple):
    """A value, or what kept the text from being one."""

    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class ResponseFormat:
    """A reply that is one JSON value; `model` is the class that it becomes, if one was given."""

    constraint: JSONSchema
    model: type[Any] | None = None

    def parse(self, text: str) -> Parsed:
        """The value of a whole reply."""
        try:
            if self.model is not None:
                return Parsed(TypeAdapter(self.model).validate_json(text))
            value = json.loads(text)
        except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            return Parsed(error=_first_line(error))
        problem = violation(self.constraint.json_schema, value, self.constraint.documents)
        return Parsed(value) if problem is None else Parsed(error=str(problem))


def read_response_format(value: Any) -> ResponseFormat | None:
    """The format of a JSONSchema, a pydantic model class, a JSON Schema dict or OpenAI's response_format dict.

    None and {"type": "text"} ask for no JSON; {"type": "json_object"} is any JSON object; "strict": False in OpenAI's
    json_schema is JSONSchema's.
    """
    constraint = _read_constraint(value)
    if constraint is None:
        return None
    schema = constraint.schema
    return ResponseFormat(constraint, schema if isinstance(schema, type) else None)


def _read_constraint(value: Any) -> JSONSchema | None:
    if value is None or value == {"type": "text"}:
        return None
    if isinstance(value, JSONSchema):
        return value
    if value == {"type": "json_object"}:
        return JSONSchema({"type": "object"})
    if isinstance(value, Mapping) and value.get("type") == "json_schema":
        inner = value.get("json_schema")
        if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), dict):
            raise RequestError(f"response_format={dict(value)!r} must have json_schema.schema, a JSON Schema dict")
        return JSONSchema(inner["schema"], strict=inner.get("strict") is not False)
    return JSONSchema(value)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)

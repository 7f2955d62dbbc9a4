"""What may be asked of the sampler, as values: no grammar library is imported here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from mlx_agent_llm.errors import ConstraintError


@dataclass(frozen=True)
class Constraint:
    """The base of every constraint; constraints of equal `key` are equal and share one compiled grammar."""

    key: str = field(init=False, repr=False)


@dataclass(frozen=True)
class JSONSchema(Constraint):
    """The output is one JSON value that is valid for `schema`, a JSON Schema dict or a pydantic model class.

    A schema that cannot be enforced exactly is an UnsupportedSchemaError when the request is made. Within what the
    schema allows, the output is written in one form: separators ", " and ": ", properties in declared order, and
    no properties that an object with declared ones does not declare.
    """

    schema: dict[str, Any] | type[BaseModel] = field(compare=False)
    json_schema: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        schema = self.schema
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema()
        if not isinstance(schema, dict):
            raise ConstraintError(f"schema={schema!r} must be a JSON Schema dict or a pydantic model class")
        object.__setattr__(self, "json_schema", schema)
        object.__setattr__(self, "key", content_key("json_schema", schema))


@dataclass(frozen=True)
class StructuralTag(Constraint):
    """The output is free text, tags and grammars as an xgrammar structural-tag format arranges them.

    Tool formats build it. Schemas inside must be grammars made by `json_grammar`: a "json_schema" format would bypass
    the preflight.
    """

    format: dict[str, Any] = field(compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", content_key("structural_tag", self.format))


def content_key(kind: str, content: Any) -> str:
    """Equal content has an equal key; property order counts, because the grammar keeps it."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        text.encode()  # a lone surrogate is not text
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"{kind} is not JSON: {error}") from error
    return f"{kind}:{text}"

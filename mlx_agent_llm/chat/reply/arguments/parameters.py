"""What the text of a parameter means, by the schema of its tool, and whether arguments are valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import validator_for

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.cursor import BrokenCallError
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.constrain.schema.read.vocabulary import read_schema
from mlx_agent_llm.constrain.schema.values.types import NO_TYPE, TypeSet, union_of_types
from mlx_agent_llm.languages.regular import nothing


class Parameters:
    """The parameters of one tool."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._reader = read_schema(schema, strict=False)
        self._validator = validator_for(schema, default=Draft202012Validator)(schema)

    @classmethod
    def of(cls, tool: Tool) -> Parameters:
        """Return those of a tool."""
        return _parameters(write_json(tool.parameters))

    @classmethod
    def unknown(cls) -> Parameters:
        """Return those of a tool that nobody declared: anything is valid."""
        return cls({})

    def check(self, arguments: dict[str, Any]) -> None:
        """Raise a BrokenCallError unless the arguments are valid."""
        violation = next(self._errors(arguments), None)
        if violation is not None:
            raise BrokenCallError(f"arguments{violation.json_path[1:]}: {violation.message}")

    def is_text(self, name: str) -> bool:
        """Return whether a parameter takes texts alone, so that whatever stands there is one."""
        types = self._types(name)
        return types != NO_TYPE and replace(types, strings=nothing()) == NO_TYPE

    def takes(self, name: str, value: Any) -> bool:
        """Return whether nothing says that the value is not valid for the parameter."""
        return not any(list(error.absolute_path)[:1] == [name] for error in self._errors({name: value}))

    @lru_cache(maxsize=256)  # noqa: B019
    def _types(self, name: str) -> TypeSet:
        reader = self._reader
        objects = reader.types(reader.root).objects
        formulas = [dict(one.named)[name] if name in dict(one.named) else one.value(name) for one in objects]
        return union_of_types([reader.types(formula) for formula in formulas])

    def _errors(self, arguments: dict[str, Any]) -> Iterator[ValidationError]:
        return self._validator.iter_errors(arguments)


@lru_cache(maxsize=1024)
def _parameters(schema: str) -> Parameters:
    return Parameters(load_json(schema))

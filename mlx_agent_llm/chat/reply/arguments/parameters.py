"""What the text of a parameter means, by the schema of its tool, and whether arguments are valid."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.cursor import BrokenCallError
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.constrain.schema.read.vocabulary import read_schema
from mlx_agent_llm.constrain.schema.values.formula import all_of
from mlx_agent_llm.constrain.schema.values.types import NO_TYPE, Typed, TypeSet, constant_type, union_of_types
from mlx_agent_llm.constrain.violation import violation, violations
from mlx_agent_llm.languages.regular import nothing


class Parameters:
    """The parameters of one tool."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._reader = read_schema(schema, strict=False)
        self._schema = schema

    @classmethod
    def of(cls, tool: Tool) -> Parameters:
        """Those of a tool."""
        return _parameters(write_json(tool.parameters))

    @classmethod
    def unknown(cls) -> Parameters:
        """Those of a tool that nobody declared: anything is valid."""
        return cls({})

    def check(self, arguments: dict[str, Any]) -> None:
        """Raise a BrokenCallError unless the arguments are valid."""
        problem = violation(self._schema, arguments)
        if problem is not None:
            raise BrokenCallError(f"arguments{problem.json_path[1:]}: {problem.message}")

    def is_text(self, name: str) -> bool:
        """Whether a parameter takes texts alone, so that whatever stands there is one."""
        types = self.types(name)
        return types != NO_TYPE and replace(types, strings=nothing()) == NO_TYPE

    def takes(self, name: str, value: Any) -> bool:
        """Whether nothing says that the value is not valid for the parameter."""
        return not any(problem.path[:1] == (name,) for problem in violations(self._schema, {name: value}))

    @lru_cache(maxsize=256)  # noqa: B019
    def types(self, name: str) -> TypeSet:
        """The types of a parameter."""
        return self.member_types(self._reader.types(self._reader.root), name)

    def member_types(self, types: TypeSet, name: str) -> TypeSet:
        """The types of a property of the objects of these types."""
        formulas = [dict(one.named)[name] if name in dict(one.named) else one.value(name) for one in types.objects]
        return union_of_types([self._reader.types(formula) for formula in formulas])

    def item_types(self, types: TypeSet, index: int) -> TypeSet:
        """The types of an item of the arrays of these types."""
        return union_of_types([self._reader.types(one.item(index)) for one in types.arrays])

    def has(self, types: TypeSet, value: bool | float | None) -> bool:
        """Whether nothing says that a scalar is not of these types; NO_TYPE stands for any."""
        both = all_of(Typed(constant_type(value)), Typed(types))
        return types == NO_TYPE or not self._reader.is_surely_empty(both)


@lru_cache(maxsize=1024)
def _parameters(schema: str) -> Parameters:
    return Parameters(load_json(schema))

"""Tools of every kind that LangChain knows as OpenAI's tool dicts, with all that their own schemas ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel
from typing_extensions import is_typeddict

from langchain_mlx_agent.typed_dicts import readable
from mlx_agent_llm.chat.tools import as_tool, check_parameters, plan_tools
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.errors import ToolChoiceError
from mlx_agent_llm.request.constraints import JSONSchema
from mlx_agent_llm.request.model_schema import parameters_of

Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]

ENUM_KEY = "value"
"""The argument that a value of an enum is, where it is asked for as a call."""


def bound_tools(tools: Tools, tool_choice: Any, parallel_tool_calls: bool, strict: bool | None) -> list[dict[str, Any]]:
    """OpenAI's tool dicts, after all that is wrong with them or with the choice was raised."""
    converted = [openai_tool(tool, strict) for tool in tools]
    plan = plan_tools(tuple(map(as_tool, converted)), tool_choice, parallel_tool_calls)
    check_parameters(plan.shown, _check)
    return converted


def openai_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """A LangChain tool, a function, a pydantic class, a TypedDict, an enum or any provider's dict as OpenAI's dict.

    strict: for tools that do not say themselves; a LangChain tool says so in its extras.
    """
    function = dict(_function_of(tool))
    extras = tool.extras if isinstance(tool, BaseTool) else None
    own = function.pop("strict", None) if extras is None else extras.get("strict")
    if (found := strict if own is None else own) is not None:
        function["strict"] = found
    return {"type": "function", "function": function}


def _function_of(tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, BaseTool) and tool.args_schema is not None:
        schema = tool.tool_call_schema
        if isinstance(schema, dict):
            return _function(tool.name, tool.description, _without(schema, "title", "description"))
        if issubclass(schema, BaseModel):
            return _function(tool.name, tool.description, _without(parameters_of(schema), "description"))
    if isinstance(tool, type) and issubclass(tool, BaseModel):
        return _of_schema(tool.model_config.get("title") or tool.__name__, parameters_of(tool))
    if isinstance(tool, type) and issubclass(tool, Enum):
        parameters = {"type": "object", "properties": {ENUM_KEY: parameters_of(tool)}, "required": [ENUM_KEY]}
        return _function(tool.__name__, "", parameters)
    if is_typeddict(tool):
        return _of_schema(tool.__name__, parameters_of(readable(tool)))
    if inspect.isfunction(tool) or inspect.ismethod(tool):
        return _of_function(tool)
    converted: Mapping[str, Any] = convert_to_openai_tool(tool)
    if "function" not in converted:
        raise ToolChoiceError(f"tool of type {converted.get('type')!r} runs at its provider: give a function instead")
    function: Mapping[str, Any] = converted["function"]
    return function


def _of_function(function: Callable[..., Any]) -> Mapping[str, Any]:
    """LangChain's reading of a function: its docstring describes the arguments, and what is injected is left out."""
    name = function.__name__
    arguments = create_schema_from_function(
        name, function, filter_args=(), parse_docstring=True, error_on_invalid_docstring=False, include_injected=False
    )
    return _function(name, inspect.cleandoc(arguments.__doc__ or ""), _without(parameters_of(arguments), "description"))


def _of_schema(name: str, schema: dict[str, Any]) -> Mapping[str, Any]:
    return _function(name, schema.get("description", ""), _without(schema, "description"))


def _function(name: str, description: str, parameters: dict[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "description": description, "parameters": parameters}


def _without(schema: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


@lru_cache(maxsize=512)
def _check(schema: JSONSchema) -> None:
    """Raise what is wrong with a schema; agents bind the same tools every turn."""
    constraint_grammar(schema)

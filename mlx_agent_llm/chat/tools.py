"""Tools, in every form they are given in, and which of them a reply may or must call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from mlx_agent_llm.errors import ConstraintError, ToolChoiceError, UnsupportedSchemaError
from mlx_agent_llm.request.constraints import JSONSchema
from mlx_agent_llm.request.model_schema import parameters_of

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments, of type object.

    strict: as in JSONSchema: with False, what no grammar enforces of the parameters is checked when the reply is whole.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ToolChoiceError(f"tool name={self.name!r} must be 1 to 64 letters, digits, '_', '.' or '-'")
        if not isinstance(self.description, str):
            raise ToolChoiceError(f"tool {self.name!r}: description={self.description!r} must be a string")
        if not isinstance(self.parameters, dict) or self.parameters.get("type") != "object":
            raise ToolChoiceError(
                f"tool {self.name!r}: parameters={self.parameters!r} must be a JSON Schema of type 'object'"
            )
        if not isinstance(self.strict, bool):
            raise ToolChoiceError(f"tool {self.name!r}: strict={self.strict!r} must be True or False")


@dataclass(frozen=True)
class ToolPlan:
    """What a reply may call: mode, the tools that are shown, those that may be called, and whether only once."""

    mode: Literal["none", "auto", "required"]
    shown: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    single: bool = False


def as_tool(value: Any) -> Tool:
    """A Tool from a Tool, an OpenAI tool dict or its bare function, a pydantic model class or a function.

    Fields of a dict that mean nothing here are passed over: every provider has some of its own.

    A function needs a name and an annotation on every parameter; its docstring is the description. Tools of LangChain
    and LlamaIndex are known by their attributes.
    """
    if isinstance(value, Tool):
        return value
    if isinstance(value, Mapping):
        return _from_dict(value)
    if isinstance(value, type) and issubclass(value, BaseModel):
        schema = parameters_of(value)
        return Tool(value.__name__, schema.pop("description", ""), schema)
    if hasattr(value, "tool_call_schema"):  # LangChain's BaseTool; the schema leaves out what is injected
        return Tool(value.name, value.description or "", _schema_of(value.tool_call_schema))
    if hasattr(value, "metadata") and hasattr(value.metadata, "get_parameters_dict"):  # LlamaIndex's BaseTool
        metadata = value.metadata
        kind = getattr(metadata, "fn_schema", None)
        given = metadata.get_parameters_dict() if kind is None else _schema_of(kind)
        return Tool(metadata.name, metadata.description or "", given)
    if callable(value):
        return _from_function(value)
    raise ToolChoiceError(f"tool={value!r} must be a Tool, a tool dict, a pydantic model class or a function")


def as_tools(values: Sequence[Any] | None) -> tuple[Tool, ...]:
    """Tools with distinct names."""
    tools = tuple(as_tool(value) for value in values or ())
    for index, tool in enumerate(tools):
        if any(tool.name == other.name for other in tools[:index]):
            raise ToolChoiceError(f"tools[{index}].name={tool.name!r} is declared twice")
    return tools


def check_parameters(tools: Sequence[Tool], check: Callable[[JSONSchema], object]) -> None:
    """Raise unless the grammar enforces the parameters of every tool exactly; `check` raises why it does not."""
    for tool in tools:
        try:
            check(JSONSchema(tool.parameters, tool.strict))
        except UnsupportedSchemaError as error:
            reason = f"{error.reason} (parameters of tool {tool.name!r})"
            raise UnsupportedSchemaError(error.pointer, error.keyword, reason) from None
        except ConstraintError as error:
            raise ConstraintError(f"parameters of tool {tool.name!r}: {error}") from None


def plan_tools(tools: tuple[Tool, ...], tool_choice: Any = None, parallel_tool_calls: bool = True) -> ToolPlan:
    """What a reply may call.

    tool_choice: None or False (auto when there are tools), "auto", "none", "required" = "any" = True, a tool's name, or
    {"type": "function", "function": {"name": ...}}. A named tool is called exactly once. With "none" the tools are
    still shown, so that the prompt keeps the prefix that it shares with other turns, and so are all of them with
    {"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": [...]}}, as OpenAI has it.
    """
    if not isinstance(parallel_tool_calls, bool):
        raise ToolChoiceError(f"parallel_tool_calls={parallel_tool_calls!r} must be True or False")
    if isinstance(tool_choice, Mapping) and tool_choice.get("type") == "allowed_tools":
        return _allowed_plan(tools, tool_choice.get("allowed_tools"), parallel_tool_calls)
    choice = _named_choice(tool_choice)
    if choice is None or choice is False or choice == "auto":
        return ToolPlan("auto" if tools else "none", tools, tools, not parallel_tool_calls)
    if choice == "none":
        return ToolPlan("none", tools)
    if choice is True or choice in ("required", "any"):
        if not tools:
            raise ToolChoiceError(f"tool_choice={tool_choice!r} needs tools, but none are given")
        return ToolPlan("required", tools, tools, not parallel_tool_calls)
    chosen = tuple(tool for tool in tools if tool.name == choice)
    if not chosen:
        known = ", ".join(repr(tool.name) for tool in tools) or "none"
        raise ToolChoiceError(
            f"tool_choice={choice!r} must be 'auto', 'none', 'required' or the name of a tool; known tools: {known}"
        )
    return ToolPlan("required", tools, chosen, single=True)


def _allowed_plan(tools: tuple[Tool, ...], allowed: Any, parallel_tool_calls: bool) -> ToolPlan:
    mode, listed = (allowed.get("mode"), allowed.get("tools")) if isinstance(allowed, Mapping) else (None, None)
    if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
        raise ToolChoiceError(f"allowed_tools={allowed!r} must have a mode, 'auto' or 'required', and a list of tools")
    plans = [plan_tools(tools, choice) for choice in listed]
    chosen = tuple(tool for tool in tools if any(tool in plan.callable for plan in plans))
    return ToolPlan(mode, tools, chosen, not parallel_tool_calls)


def _named_choice(choice: Any) -> str | bool | None:
    if choice is None or isinstance(choice, str | bool):
        return choice
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ToolChoiceError(
            f"tool_choice={choice!r} must be None, a bool, a string or "
            "{'type': 'function', 'function': {'name': ...}}"
        )
    return name


def _from_dict(value: Mapping[str, Any]) -> Tool:
    function = value.get("function") if value.get("type") == "function" else value
    if not isinstance(function, Mapping) or "name" not in function:
        raise ToolChoiceError(f"tool={dict(value)!r} must have a name, or be {{'type': 'function', 'function': ...}}")
    given = {key: function[key] for key in ("description", "parameters", "strict") if function.get(key) is not None}
    return Tool(function["name"], **given)


def _schema_of(parameters: Any) -> dict[str, Any]:
    """The schema of a pydantic model class, or of a schema as it is, without its description."""
    schema = parameters if isinstance(parameters, dict) else parameters_of(parameters)
    return {key: value for key, value in schema.items() if key != "description"}


def _from_function(function: Any) -> Tool:
    name = getattr(function, "__name__", type(function).__name__)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise ToolChoiceError(f"tool {name!r}: parameter {parameter.name!r} must be one that is passed by name")
        if parameter.annotation is inspect.Parameter.empty:
            raise ToolChoiceError(f"tool {name!r}: parameter {parameter.name!r} needs an annotation")
    try:
        schema = parameters_of(function)
    except (NameError, ConstraintError) as error:
        raise ToolChoiceError(f"tool {name!r}: its annotations are no JSON Schema: {error}") from error
    return Tool(name, inspect.getdoc(function) or "", schema)

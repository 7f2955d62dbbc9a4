"""Functions, as calls were asked for before there were tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_agent_llm.server.api_error import invalid


def tools_of(
    tools: Sequence[Mapping[str, Any]] | None, functions: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """The tools of a request, which may call them functions."""
    if functions is None:
        return None if tools is None else [_checked(tool, index) for index, tool in enumerate(tools)]
    if tools is not None:
        raise invalid("functions and tools mean the same: give one of them", "functions")
    return [{"type": "function", "function": dict(function)} for function in functions]


def tool_choice_of(tool_choice: str | Mapping[str, Any] | None, function_call: str | Mapping[str, Any] | None) -> Any:
    """The choice of a tool, or of a function."""
    if function_call is None:
        return tool_choice
    if tool_choice is not None:
        raise invalid("function_call and tool_choice mean the same: give one of them", "function_call")
    return {"type": "function", "function": function_call} if isinstance(function_call, Mapping) else function_call


def _checked(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        kind = tool.get("type")
        raise invalid(f"tools[{index}].type={kind!r} must be 'function': nothing else runs here", f"tools[{index}]")
    return dict(tool)

"""The tools of a chat: functions of a Python file, and those of MCP servers."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer

from mlx_agent_llm.chat import Tool, ToolCall
from mlx_agent_llm.chat.tools import as_tool
from mlx_agent_llm.errors import MLXAgentError


class RunnableTool(NamedTuple):
    """A tool and what runs it, which is given the arguments by name."""

    tool: Tool
    run: Callable[..., Any]


class ToolBox:
    """Tools by their names; a name that comes twice is a BadParameter."""

    def __init__(self) -> None:
        self._tools: dict[str, RunnableTool] = {}

    @property
    def tools(self) -> list[Tool]:
        """What the model is told of."""
        return [one.tool for one in self._tools.values()]

    def add(self, tools: Mapping[str, RunnableTool], origin: str) -> None:
        """Take the tools of a file or server."""
        for name, tool in tools.items():
            if name in self._tools:
                raise typer.BadParameter(f"{origin}: there is a tool {name!r} already")
            self._tools[name] = tool

    def run(self, call: ToolCall) -> str:
        """What the tool gives as text; an error of it is a text, too, which the model may make something of."""
        try:
            return str(self._tools[call.name].run(**call.arguments))
        except Exception as error:  # any code of the user's runs in there
            return f"error: {type(error).__name__}: {error}"


def tools_of_file(path: Path) -> dict[str, RunnableTool]:
    """The public functions that a Python file defines; a BadParameter says what is wrong with it."""
    spec = importlib.util.spec_from_file_location(f"tools_of_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise typer.BadParameter(f"{path} is no Python file", param_hint="--tools")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        functions = inspect.getmembers(module, inspect.isfunction)
        own = {name: one for name, one in functions if one.__module__ == module.__name__ and not name.startswith("_")}
        tools = {name: RunnableTool(as_tool(function), function) for name, function in own.items()}
    except MLXAgentError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--tools") from None
    except Exception as error:  # any code of the user's runs in there
        problem = f"{path} cannot be imported: {type(error).__name__}: {error}"
        raise typer.BadParameter(problem, param_hint="--tools") from None
    if not tools:
        raise typer.BadParameter(f"{path} defines no public function", param_hint="--tools")
    return tools

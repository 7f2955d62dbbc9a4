"""A session: the engine, the tools and the conversation for as long as somebody types."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.console import Console

from mlx_agent_llm.cli.chat.conversation import Conversation, Message
from mlx_agent_llm.cli.chat.screen import Screen
from mlx_agent_llm.cli.chat.slash_commands import run_command
from mlx_agent_llm.cli.chat.tool_box import ToolBox, tools_of_file
from mlx_agent_llm.cli.failure import PART_DONE
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.cli.schema_argument import read_schema
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.chat_options import ChatOptions
from mlx_agent_llm.errors import EngineClosedError, MLXAgentError
from mlx_agent_llm.request import SamplingParams


class Settings(NamedTuple):
    """The options as they were given."""

    model: str
    system: str | None = None
    tools: Path | None = None
    mcp: Path | None = None
    calls_first: bool = False
    runs_all_calls: bool = False
    schema: str | None = None
    saved: Path | None = None
    temperature: float | None = None
    max_tokens: int = 1024
    seed: int | None = None
    json_file: Path | None = None


def run_session(settings: Settings) -> None:
    """Everything from loading to the last line; exit code 3 if a message of a pipe was not answered."""
    is_typed = sys.stdin.isatty()
    has_tools = settings.tools is not None or settings.mcp is not None
    if has_tools and not is_typed and not settings.runs_all_calls:
        hint = "--mcp" if settings.tools is None else "--tools"
        raise typer.BadParameter("nobody could be asked before a call runs: give --yes, too", param_hint=hint)
    if settings.calls_first and not has_tools:
        raise typer.BadParameter("it needs --tools or --mcp", param_hint="--call-first")
    console, errors = console_beside(settings.json_file), Console(stderr=True)
    beginning = _beginning(settings)  # whatever is wrong with files is said before the model is loaded
    schema = None if settings.schema is None else read_schema(settings.schema, "--schema")
    with contextlib.ExitStack() as stack:
        box = _tool_box(settings, errors, stack)
        engine = stack.enter_context(Engine.load(settings.model))
        params = SamplingParams(settings.max_tokens, temperature=settings.temperature, seed=settings.seed)
        options: ChatOptions = {"params": params, "tools": box.tools or None, "response_format": schema}
        if settings.calls_first:
            options |= {"tool_choice": "required", "parallel_tool_calls": False}
        conversation = Conversation(engine, beginning, options, box.run)
        screen = Screen(console, is_plain_text=schema is not None, runs_all_calls=settings.runs_all_calls)
        if is_typed:
            _greet(screen, engine, box)
        num_failed = sum(not _take(line, conversation, engine, screen) for line in _lines(conversation))
        write_json(settings.json_file, {"model": engine.model_name, "messages": conversation.messages})
    if num_failed and not is_typed:
        raise typer.Exit(PART_DONE)


def _beginning(settings: Settings) -> list[Message]:
    messages = [] if settings.saved is None else _read_saved(settings.saved)
    if settings.system is not None:
        messages = [message for message in messages if message["role"] != "system"]
        messages.insert(0, {"role": "system", "content": settings.system})
    return messages


def _read_saved(path: Path) -> list[Message]:
    try:
        messages: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}", param_hint="--continue") from None
    if not isinstance(messages, list) or not all(isinstance(one, dict) and "role" in one for one in messages):
        raise typer.BadParameter(f"{path} must be a list of messages, as /save writes it", param_hint="--continue")
    return messages


def _tool_box(settings: Settings, errors: Console, stack: contextlib.ExitStack) -> ToolBox:
    box = ToolBox()
    if settings.tools is not None:
        box.add(tools_of_file(settings.tools), str(settings.tools))
    if settings.mcp is not None:
        from mlx_agent_llm.cli.chat.mcp_servers import MCPServers, read_servers, why  # an extra

        entries = read_servers(settings.mcp)
        servers = stack.enter_context(contextlib.closing(MCPServers()))
        for name, entry in entries.items():
            try:
                box.add(servers.start(entry), name)
            except typer.BadParameter:
                raise
            except Exception as error:  # of that server: the others load
                message = f"MCP server {name!r} is left out: {why(error)}"
                errors.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)
    return box


def _greet(screen: Screen, engine: Engine, box: ToolBox) -> None:
    tools = f"; tools: {', '.join(tool.name for tool in box.tools)}" if box.tools else ""
    screen.note(f"{engine.model_name}{tools}. /help shows commands, Ctrl-D ends.", style="dim")


def _lines(conversation: Conversation) -> Iterator[str]:
    """What is typed or piped in, up to its end or /exit."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  arrow keys and a history for input()
    while True:
        prompt = f"[{conversation.current}] > " if len(conversation.branches) > 1 else "> "
        try:
            line = input(prompt if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in ("/exit", "/quit", "/bye"):
            return
        if line:
            yield line


def _take(line: str, conversation: Conversation, engine: Engine, screen: Screen) -> bool:
    """Answer a line, or carry it out; False if it failed, which is said."""
    try:
        if line.startswith("/"):
            screen.note(run_command(line, conversation, engine), style="")
        else:
            conversation.ask(line, screen)
    except KeyboardInterrupt:
        screen.reset()
        if not sys.stdin.isatty():
            raise
        screen.note("interrupted: the message is taken back")
    except EngineClosedError:
        raise
    except (MLXAgentError, ValueError, OSError) as error:
        screen.reset()
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    return True

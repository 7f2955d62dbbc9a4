"""The format for models whose template knows no tools: instructions in the system prompt, JSON between two markers.

A call is `<tool_call>{"name": "f", "arguments": {...}}</tool_call>`, further calls follow after a newline, and results
come back in a user turn between `<tool_response>` and `</tool_response>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import ToolCall
from mlx_agent_llm.chat.tool_formats.json_calls import BEGIN, END, EXAMPLE, JSONCallParser, PlainText
from mlx_agent_llm.chat.tools import Tool, ToolPlan, tool_json
from mlx_agent_llm.constrain.json_grammar import json_grammar
from mlx_agent_llm.constrain.leaves import write_json
from mlx_agent_llm.constrain.spec import Constraint, JSONSchema, StructuralTag

Format = dict[str, Any]


class GenericJSON:
    """The generic JSON format; see ToolFormat for what its methods promise."""

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Return the tools, one JSON a line, and how to call them."""
        listed = "\n".join(tool_json(tool) for tool in tools)
        return (
            f"You can call these tools:\n{listed}\n\n"
            f"To call a tool, write {EXAMPLE} with the name of the tool and arguments that fit its parameters. "
            "The result comes back between <tool_response> and </tool_response>."
        )

    def constraint(self, plan: ToolPlan, response: JSONSchema | None) -> Constraint | None:
        """Return free text without calls, free text that may turn into calls, calls alone, or calls or the JSON."""
        if plan.mode == "none":
            no_calls = StructuralTag({"type": "any_text", "excludes": [BEGIN]})
            return response or (no_calls if plan.shown else None)
        calls = _calls(plan)
        if plan.mode == "required":
            return StructuralTag(_sequence(_text(BEGIN), calls))
        if response is not None:
            return StructuralTag(
                {"type": "or", "elements": [_sequence(_text(BEGIN), calls), _json(response.json_schema)]}
            )
        return StructuralTag({"type": "dispatch", "rules": [[BEGIN, calls]], "loop": False})

    def template_message(self, message: Message) -> dict[str, Any]:
        """Return calls behind the assistant's text, and a tool's result as a user turn."""
        if message.role == "tool":
            return {"role": "user", "content": f"<tool_response>{message.content}</tool_response>"}
        calls = "\n".join(_wire(call) for call in message.tool_calls)
        return {"role": message.role, "content": message.content + calls}

    def parser(self, plan: ToolPlan, response: JSONSchema | None) -> JSONCallParser | PlainText:
        """Return a parser; where the reply is calls or else JSON, a marker within the JSON is no call."""
        if plan.mode == "none":
            return PlainText()
        return JSONCallParser(plan.callable, anywhere=plan.mode == "auto" and response is None)


def _calls(plan: ToolPlan) -> Format:
    """Return the format of everything behind the first begin marker."""
    call: Format = {"type": "or", "elements": [_call(tool) for tool in plan.callable]}
    if plan.single:
        return call
    return _sequence(call, {"type": "star", "content": _sequence(_text("\n" + BEGIN), call)})


def _call(tool: Tool) -> Format:
    name = _text(f'{{"name": {write_json(tool.name)}, "arguments": ')
    return _sequence(name, _json(tool.parameters), _text("}" + END))


def _json(schema: dict[str, Any]) -> Format:
    return {"type": "grammar", "grammar": json_grammar(schema)}


def _text(value: str) -> Format:
    return {"type": "const_string", "value": value}


def _sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def _wire(call: ToolCall) -> str:
    return f'{BEGIN}{{"name": {write_json(call.name)}, "arguments": {call.arguments_json}}}{END}'

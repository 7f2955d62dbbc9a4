"""Tools with arguments of every type, calls of them, and conversations that hold these."""

from __future__ import annotations

import json
from typing import Any

from mlx_agent_llm.chat import Tool

SEARCH = Tool(
    "search",
    "Searches.",
    {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to find."},
            "limit": {"type": "integer", "description": "How many."},
            "exact": {"type": "boolean", "description": "Whether words count."},
            "tags": {"type": "array", "items": {"type": "string"}, "description": "Of which kinds."},
            "where": {
                "type": "object",
                "description": "The place.",
                "properties": {"city": {"type": "string", "description": "Its name."}},
            },
        },
        "required": ["query", "limit", "exact", "tags", "where"],
    },
)
NOW = Tool(
    "now", "Tells the time.", {"type": "object", "properties": {"zone": {"type": "string", "description": "Z."}}}
)
TOOLS = (SEARCH, NOW)
ARGUMENTS = {"query": "weather", "limit": 3, "exact": False, "tags": ["a", "b"], "where": {"city": "Rome"}}
UNICODE = {"query": "naïve 東京 😀", "limit": -1, "exact": True, "tags": [], "where": {"city": "Zürich"}}


def history(calls: list[tuple[str, dict[str, Any]]], *, ended: bool = True) -> list[dict[str, Any]]:
    """A conversation with these calls and their results."""
    made = [
        {"id": f"callid00{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(calls)
    ]
    results = [
        {"role": "tool", "tool_call_id": f"callid00{index}", "content": f"result{index}"} for index in range(len(calls))
    ]
    end = [{"role": "assistant", "content": "answer"}, {"role": "user", "content": "second"}] if ended else []
    return [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "", "tool_calls": made},
        *results,
        *end,
    ]


def with_two_results(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """A question, two calls, and their results at the end."""
    calls = [("search", arguments), ("now", {"zone": "UTC"})]
    made = [
        {"id": f"callid00{index}", "type": "function", "function": {"name": name, "arguments": given}}
        for index, (name, given) in enumerate(calls)
    ]
    results = [
        {"role": "tool", "tool_call_id": f"callid00{index}", "name": name, "content": f"result{index}"}
        for index, (name, _) in enumerate(calls)
    ]
    return [FIRST, {"role": "assistant", "content": "", "tool_calls": made}, *results]


def as_openai(tool: Tool) -> dict[str, Any]:
    """OpenAI's dict of a tool."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


FIRST, RULES = {"role": "user", "content": "first"}, {"role": "system", "content": "rules"}
THOUGHT = {"role": "assistant", "content": "answer", "reasoning_content": "thought"}
CONVERSATIONS = {
    "plain": [FIRST],
    "system": [RULES, FIRST],
    "reasoning": [FIRST, THOUGHT, {"role": "user", "content": "second"}],
    "tools": [RULES, FIRST],
    "calls": with_two_results(ARGUMENTS),
    "unicode": with_two_results(UNICODE),
}
WITH_TOOLS = {"tools", "calls", "unicode"}
WITH_CALLS = {"calls", "unicode"}

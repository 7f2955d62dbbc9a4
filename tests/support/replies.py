"""What any reply with tools has to keep to."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jsonschema import Draft202012Validator

from mlx_agent_llm import ChatOutput, Tool


def assert_obeys(output: ChatOutput, choice: str, tools: Sequence[Tool]) -> None:
    """Assert that a reply is what the choice asks for, and that its calls are valid for their tools."""
    assert not output.invalid_tool_calls, output
    for call in output.tool_calls:
        (tool,) = (tool for tool in tools if tool.name == call.name)
        Draft202012Validator(tool.parameters).validate(call.arguments)
        assert json.loads(call.arguments_json) == call.arguments
    if choice == "none":
        assert not output.tool_calls
    elif choice != "auto":
        assert output.tool_calls and output.text == "", output

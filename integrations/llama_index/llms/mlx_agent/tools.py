"""LlamaIndex's tools as the engine takes them, and the calls of an answer as LlamaIndex's selections."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from pydantic_core import from_json

from llama_index.llms.mlx_agent.errors import AnswerError
from mlx_agent_llm.errors import ToolChoiceError
from mlx_agent_llm.request.model_schema import parameters_of


def as_tool_dict(tool: Any, strict: bool | None = None) -> Any:
    """A LlamaIndex tool in OpenAI's form, with all that its schema demands; other forms are the engine's own.

    strict: with False, what no grammar enforces is checked when the answer is whole.

    The name is not changed, because LlamaIndex looks the called tool up by it.
    """
    if not isinstance(tool, BaseTool):
        return tool
    metadata = tool.metadata
    if metadata.fn_schema is None:
        raise ToolChoiceError(f"tool {metadata.name!r}: fn_schema=None must be a pydantic model of its arguments")
    schema = parameters_of(metadata.fn_schema)
    parameters = {key: value for key, value in schema.items() if key != "description"}
    function = {"name": metadata.name, "description": metadata.description, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def tool_choice_of(tool_choice: Any, tool_required: bool) -> Any:
    """The engine's tool_choice for LlamaIndex's two parameters; "none" contradicts a required tool."""
    if not tool_required:
        return tool_choice
    if tool_choice == "none":
        raise ToolChoiceError("tool_choice='none' contradicts tool_required=True")
    return "required" if tool_choice in (None, False, "auto") else tool_choice


def read_selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls of an answer, or what is there of them while it streams.

    Raises AnswerError for a whole answer with a call that was cut off or is broken: half of it must not be run.
    """
    for call in response.message.additional_kwargs.get("invalid_tool_calls", ()):
        raise AnswerError(f"the answer has a call that cannot be run: {call['error']}: {call['text']!r}")
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block.tool_kwargs)
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(arguments: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(arguments, dict):
        return arguments
    begun: dict[str, Any] = from_json(arguments, allow_partial="trailing-strings") if arguments else {}
    return begun

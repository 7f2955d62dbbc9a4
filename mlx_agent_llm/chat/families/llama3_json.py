"""Llama 3.1 to 3.3: a reply that is a JSON object with name and parameters, without any mark."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

TAG = "<|python_tag|>"
BODY = JSONCall(arguments_key="parameters")

# {"name": "f", "parameters": {...}}; {"name": ...}
LLAMA3_JSON = ToolFormat(
    name="llama3_json",
    signs=("<|start_header_id|>", '"parameters"'),
    calls=CallSyntax(
        BODY,
        opening=r'^\s*(<\|python_tag\|>)?\s*\{\s*("type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"',
        around=((TAG, ""),),
        separator="; ",
    ),
    # A JSON answer could look like a call; after the tag nothing else is meant.
    calls_beside_json=CallSyntax(BODY, marker=TAG, section_begin=TAG, separator="; "),
)

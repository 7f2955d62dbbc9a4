"""What an engine takes and gives as JSON: the language of /v1/engine, spoken by server and client alike."""

from mlx_agent_llm.wire.errors import error_of_json, json_of_error
from mlx_agent_llm.wire.frames import (
    ChatFrame,
    Frame,
    OutputsFrame,
    TextFrame,
    bytes_of_tokens,
    read_frame,
    write_frame,
)
from mlx_agent_llm.wire.params import constraint_of_json, json_of_constraint, json_of_params, params_of_json

__all__ = [
    "ChatFrame",
    "Frame",
    "OutputsFrame",
    "TextFrame",
    "bytes_of_tokens",
    "constraint_of_json",
    "error_of_json",
    "json_of_constraint",
    "json_of_error",
    "json_of_params",
    "params_of_json",
    "read_frame",
    "write_frame",
]

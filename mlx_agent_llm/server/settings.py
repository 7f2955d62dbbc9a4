"""What the server allows: one frozen value, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mlx_agent_llm.config import check_range


@dataclass(frozen=True)
class ServerSettings:
    """Bounds of what a client may ask for and hold; a bad value is a ValueError that names field, value and bound.

    max_body_bytes: of a request. max_messages, max_prompts, max_tools, max_n: in one request. max_schema_bytes: of a
        JSON Schema, as text. max_depth: of nested arrays and objects in a request.
    max_open_requests: of one key at a time; further ones are refused with 429.
    default_max_tokens: where a request does not say how long its answer may be; less where the context is short.
    keepalive_seconds: after so long without an event a stream gets a comment, so that proxies hold the connection.
    send_timeout: a client that has not taken what was sent to it after so many seconds is cut off.
    drain_seconds: how long requests may go on after the server was told to stop.
    max_stored_responses, max_stored_bytes: what previous_response_id can name; the oldest are forgotten first.
    """

    max_body_bytes: int = 16 * 2**20
    max_messages: int = 4096
    max_prompts: int = 4096
    max_tools: int = 128
    max_n: int = 16
    max_schema_bytes: int = 256 * 2**10
    max_depth: int = 100
    max_open_requests: int = 128
    default_max_tokens: int = 4096
    keepalive_seconds: float = 10.0
    send_timeout: float = 30.0
    drain_seconds: float = 30.0
    max_stored_responses: int = 1000
    max_stored_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for field in fields(self):
            is_integer = field.type == "int"
            check_range(field.name, getattr(self, field.name), 1 if is_integer else 0.01, integer=is_integer)

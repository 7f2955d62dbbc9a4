"""Events of one reply as Anthropic's message: event by event, or whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mlx_agent_llm.request import Usage
from mlx_agent_llm.server.reply_events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ReasoningPiece,
    ReplyEnd,
    ReplyEvent,
    TextPiece,
    WholeReply,
)

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@dataclass
class MessagesEncoder:
    """Writes one reply; shows_thinking: whether the client asked for what the model thought.

    Blocks are numbered as they come: one ends where another kind of content, or another call, begins.
    """

    id: str
    model: str
    num_prompt_tokens: int
    shows_thinking: bool
    _num_blocks: int = 0
    _open: str | None = field(default=None)  # the type of the block that is being written

    def begin(self) -> list[dict[str, Any]]:
        """The first event; how much of the prompt was cached is known at the end only."""
        usage = {"input_tokens": self.num_prompt_tokens, "output_tokens": 0}
        return [{"type": "message_start", "message": self._message([], usage)}]

    def events(self, event: ReplyEvent) -> list[dict[str, Any]]:
        """What an event of the reply adds to the stream."""
        match event:
            case TextPiece(text):
                return [*self._turn_to("text", {"type": "text", "text": ""}), self._delta("text_delta", "text", text)]
            case ReasoningPiece(text) if self.shows_thinking:
                block = {"type": "thinking", "thinking": "", "signature": ""}
                return [*self._turn_to("thinking", block), self._delta("thinking_delta", "thinking", text)]
            case CallBegin(_, call_id, name):
                return [*self._close(), *self._turn_to("tool_use", _tool_use(call_id, name, {}))]
            case CallPiece(_, text):
                return [self._delta("input_json_delta", "partial_json", text)]
            case CallEnd():
                return self._close()
            case ReplyEnd():
                return [*self._close(), self._message_delta(event), {"type": "message_stop"}]
            case _:
                return []

    def whole(self, reply: WholeReply) -> dict[str, Any]:
        """The reply at once."""
        blocks: list[dict[str, Any]] = []
        if reply.reasoning and self.shows_thinking:
            blocks.append({"type": "thinking", "thinking": reply.reasoning, "signature": ""})
        if reply.text:
            blocks.append({"type": "text", "text": reply.text})
        blocks += [_tool_use(call.id, call.name, json.loads(call.arguments)) for call in reply.calls]
        return self._message(blocks, usage_of(reply.end.usage)) | _stop_of(reply.end)

    def _message(self, content: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _turn_to(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """The events after which a block of this kind is open."""
        if self._open == kind:
            return []
        closing = self._close()
        self._open = kind
        return [*closing, {"type": "content_block_start", "index": self._num_blocks, "content_block": block}]

    def _close(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        self._open = None
        self._num_blocks += 1
        return [{"type": "content_block_stop", "index": self._num_blocks - 1}]

    def _delta(self, kind: str, name: str, text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._num_blocks, "delta": {"type": kind, name: text}}

    def _message_delta(self, end: ReplyEnd) -> dict[str, Any]:
        return {"type": "message_delta", "delta": _stop_of(end), "usage": usage_of(end.usage)}


def usage_of(usage: Usage) -> dict[str, int]:
    """Anthropic's counts: input_tokens are those that were not cached."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _stop_of(end: ReplyEnd) -> dict[str, Any]:
    reason = "stop_sequence" if end.stop_text is not None else _STOP_REASONS[end.finish_reason]
    return {"stop_reason": reason, "stop_sequence": end.stop_text}


def _tool_use(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}

"""Events of replies as OpenAI's chat completion: chunk by chunk, or whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_agent_llm.request import FinishReason, Usage
from mlx_agent_llm.server.logprob_content import LogprobWriter
from mlx_agent_llm.server.reply_events import (
    CallBegin,
    CallEnd,
    CallPiece,
    Logprobs,
    ReasoningPiece,
    ReplyEnd,
    ReplyEvent,
    TextPiece,
    WholeReply,
)


@dataclass
class ChatEncoder:
    """Writes the replies to one request; legacy: calls are written as functions.

    A chunk goes to one choice; the first of a choice has its role, the last its finish_reason.
    """

    id: str
    created: int
    model: str
    logprobs: LogprobWriter
    legacy: bool = False
    _begun: set[int] = field(default_factory=set)  # choices
    _usages: dict[int, Usage] = field(default_factory=dict)  # of choices

    def chunks(self, index: int, event: ReplyEvent) -> list[dict[str, Any]]:
        """What an event of the index-th reply adds to the stream."""
        chunks = []
        if index not in self._begun:
            self._begun.add(index)
            chunks.append(self._chunk(index, {"role": "assistant", "content": ""}))
        if isinstance(event, ReplyEnd):
            self._usages[index] = event.usage
            return [*chunks, self._chunk(index, {}, self._finish_reason(event.finish_reason))]
        if isinstance(event, Logprobs):
            return [*chunks, self._chunk(index, {}, logprobs={"content": self.logprobs.content(event.tokens)})]
        delta = self._delta(event)
        return chunks if delta is None else [*chunks, self._chunk(index, delta)]

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after all others of a stream that includes usage."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": usage_of([usage for _, usage in sorted(self._usages.items())]),
        }

    def whole(self, replies: Sequence[WholeReply]) -> dict[str, Any]:
        """All replies at once."""
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": usage_of([reply.end.usage for reply in replies]),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _delta(self, event: ReplyEvent) -> dict[str, Any] | None:
        match event:
            case TextPiece(text):
                return {"content": text}
            case ReasoningPiece(text):
                return {"reasoning_content": text}
            case CallBegin(_, _, name) if self.legacy:
                return {"function_call": {"name": name, "arguments": ""}}
            case CallPiece(_, text) if self.legacy:
                return {"function_call": {"arguments": text}}
            case CallBegin(index, call_id, name):
                function = {"name": name, "arguments": ""}
                return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
            case CallPiece(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
            case _:
                return None

    def _choice(self, index: int, reply: WholeReply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or (None if reply.calls else "")}
        message["refusal"] = None
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.calls and self.legacy:
            message["function_call"] = _function(reply.calls[0])
        elif reply.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": _function(call)} for call in reply.calls
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": {"content": self.logprobs.content(reply.logprobs)} if reply.logprobs else None,
            "finish_reason": self._finish_reason(reply.end.finish_reason),
        }

    def _finish_reason(self, reason: FinishReason) -> str:
        return "function_call" if reason == "tool_calls" and self.legacy else reason


def usage_of(usages: Iterable[Usage]) -> dict[str, Any]:
    """The tokens of all replies in order; they have one prompt, which the first one computes."""
    usages = list(usages)
    prompt = usages[0].prompt_tokens
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usages[0].cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": sum(usage.reasoning_tokens for usage in usages)},
    }


def _function(call: CallEnd) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}

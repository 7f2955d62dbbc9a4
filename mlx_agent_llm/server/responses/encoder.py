"""Events of one reply as OpenAI's response: event by event, in the order that its clients expect, or whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from mlx_agent_llm.request import Usage
from mlx_agent_llm.server.api_error import APIError
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
)

Event = dict[str, Any]


@dataclass
class ResponseEncoder:
    """Writes one reply; response is what is known of it, and whole after its last event.

    One item is open at a time: what the model thought, its text or a call.
    """

    response: dict[str, Any]
    logprobs: LogprobWriter
    _num_events: int = 0
    _item: dict[str, Any] | None = None
    _logprobs: list[dict[str, Any]] = field(default_factory=list)  # of the tokens that no text has come with yet

    def begin(self) -> list[Event]:
        """The events before the first item."""
        return [self._event("created", response=dict(self.response)), self._with_response("in_progress")]

    def events(self, event: ReplyEvent) -> list[Event]:
        """What an event of the reply adds to the stream."""
        match event:
            case ReasoningPiece(text):
                return [*self._open_text("reasoning"), self._grow("reasoning_text", text)]
            case TextPiece(text):
                return [*self._open_text("message"), self._grow("output_text", text)]
            case Logprobs(tokens):
                self._note_logprobs(self.logprobs.content(tokens))
                return []
            case CallBegin(_, call_id, name):
                call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
                return [*self._close(), self._add(call, "fc_")]
            case CallPiece(_, text):
                return [self._grow_call(text)]
            case CallEnd():
                return self._close()
            case ReplyEnd():
                return [*self._close(event.finish_reason == "length"), self._end(event)]

    def failed(self, error: APIError) -> list[Event]:
        """The events after an error: what was written so far is incomplete."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        closing = self._close(is_cut_off=True)
        self.response |= {"status": "failed", "error": {"code": code, "message": error.message}}
        return [*closing, self._with_response("failed")]

    def _event(self, kind: str, **values: Any) -> Event:
        self._num_events += 1
        return {"type": f"response.{kind}", "sequence_number": self._num_events - 1, **values}

    def _with_response(self, kind: str) -> Event:
        return self._event(kind, response={**self.response, "output": list(self.response["output"])})

    def _place(self) -> dict[str, Any]:
        """Where the open item is."""
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self.response["output"])}

    def _add(self, item: Mapping[str, Any], prefix: str) -> Event:
        self._item = {"id": f"{prefix}{uuid4().hex}", **item, "status": "in_progress"}
        index = len(self.response["output"])
        return self._event("output_item.added", output_index=index, item=dict(self._item))

    def _open_text(self, kind: str) -> list[Event]:
        """The events after which an item of this kind is open, with a part for its text."""
        if self._item is not None and self._item["type"] == kind:
            return []
        closing = self._close()
        if kind == "reasoning":
            added = self._add({"type": kind, "summary": [], "content": []}, "rs_")
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        else:
            added = self._add({"type": kind, "role": "assistant", "content": []}, "msg_")
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        assert self._item is not None
        self._item["content"] = [part]
        opened = self._event("content_part.added", **self._place(), content_index=0, part=dict(part))
        return [*closing, added, opened]

    def _grow(self, kind: str, text: str) -> Event:
        assert self._item is not None
        part = self._item["content"][0]
        part["text"] += text
        values: dict[str, Any] = {**self._place(), "content_index": 0, "delta": text}
        if kind == "output_text":
            values["logprobs"], self._logprobs = self._logprobs, []
            part["logprobs"] += values["logprobs"]
        return self._event(f"{kind}.delta", **values)

    def _grow_call(self, text: str) -> Event:
        assert self._item is not None
        self._item["arguments"] += text
        return self._event("function_call_arguments.delta", **self._place(), delta=text)

    def _note_logprobs(self, content: list[dict[str, Any]]) -> None:
        """Those of a piece come with the next one, or with the end; those of reasoning and calls are not shown."""
        if self._item is None or self._item["type"] == "message":
            self._logprobs += content

    def _close(self, is_cut_off: bool = False) -> list[Event]:
        """The events after which no item is open."""
        if self._item is None:
            return []
        item, place = self._item, self._place()
        item["status"] = "incomplete" if is_cut_off else "completed"
        if item["type"] == "function_call":
            done = [self._event("function_call_arguments.done", **place, arguments=item["arguments"])]
        else:
            done = self._text_done(item["content"][0], place)
        done.append(self._event("output_item.done", output_index=place["output_index"], item=dict(item)))
        self.response["output"].append(item)
        self._item = None
        return done

    def _text_done(self, part: dict[str, Any], place: dict[str, Any]) -> list[Event]:
        values, logprobs = {**place, "content_index": 0}, {}
        if "logprobs" in part:
            part["logprobs"] += self._logprobs
            logprobs, self._logprobs = {"logprobs": part["logprobs"]}, []
        return [
            self._event(f"{part['type']}.done", **values, text=part["text"], **logprobs),
            self._event("content_part.done", **values, part=dict(part)),
        ]

    def _end(self, end: ReplyEnd) -> Event:
        self.response["usage"] = usage_of(end.usage)
        if end.finish_reason == "length":
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            return self._with_response("incomplete")
        self.response["status"] = "completed"
        return self._with_response("completed")


def usage_of(usage: Usage) -> dict[str, Any]:
    """The tokens of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }

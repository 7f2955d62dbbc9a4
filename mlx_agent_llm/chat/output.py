"""What a chat request gives back: deltas while it runs, and their fold when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from mlx_agent_llm.request import FinishReason, Timings, TokenLogprob, Usage
from mlx_agent_llm.request.constraints import CheckedKeywords


@dataclass(frozen=True)
class ToolCall:
    """A whole call: its arguments are valid for the tool's schema; arguments_json is their text as it was written."""

    id: str
    name: str
    arguments: dict[str, Any]
    arguments_json: str


@dataclass(frozen=True)
class InvalidToolCall:
    """A call that was cut off or is broken: its text, markers included, as the model wrote it, and what is wrong.

    Fragments with the same id may have been streamed before that was known.
    """

    id: str
    text: str
    error: str


@dataclass(frozen=True)
class ToolCallDelta:
    """A fragment of the index-th call: the first one carries id and name, the others pieces of the arguments' JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ChatDelta:
    """What one step added to a chat: a piece of text or of a call, a finished call, or the end.

    tool_call: a fragment, for showing a call while it is written. finished_call: the whole call, after its fragments.
    The last delta has finish_reason, usage and timings; with a response format also parsed, or the parse_error.
    logprobs: one for each token of the step, markers of calls and the end included, when SamplingParams.logprobs asks.
    forced_close: the end was not sampled, but completes calls and JSON before max_tokens would have cut them off.
    checked: the (pointer, keyword) pairs of a response format with strict=False that the answer was checked for.
    stop_text: the one of SamplingParams.stop that ended the reply.
    """

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCallDelta | None = None
    finished_call: ToolCall | InvalidToolCall | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    parsed: Any = None
    parse_error: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    forced_close: bool = False
    checked: CheckedKeywords = ()
    stop_text: str | None = None


@dataclass(frozen=True)
class ParsedMessage:
    """A whole reply, taken apart. A call that is broken, or not valid for its tool, is among invalid_tool_calls."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()

    @classmethod
    def of(cls, deltas: Sequence[ChatDelta]) -> Self:
        """The fold of a reply's deltas."""
        calls = [delta.finished_call for delta in deltas if delta.finished_call is not None]
        return cls(
            "".join(delta.text for delta in deltas),
            "".join(delta.reasoning for delta in deltas),
            tuple(call for call in calls if isinstance(call, ToolCall)),
            tuple(call for call in calls if isinstance(call, InvalidToolCall)),
        )


@dataclass(frozen=True)
class ChatOutput:
    """A whole chat result: the fold of its deltas.

    parsed is the value of the response format: an instance of the pydantic model, or what json.loads gives. It is None
    when there is no response format, when tools were called instead, and when parse_error says why not. checked: the
    (pointer, keyword) pairs of a response format with strict=False that the answer was checked for afterwards.
    """

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    invalid_tool_calls: tuple[InvalidToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    parsed: Any = None
    parse_error: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    forced_close: bool = False
    checked: CheckedKeywords = ()


def fold_chat(deltas: Iterable[ChatDelta]) -> ChatOutput:
    """The whole result of a chat's deltas, the last of which has a finish_reason."""
    deltas = list(deltas)
    last = deltas[-1]
    assert last.finish_reason is not None and last.usage is not None and last.timings is not None
    message = ParsedMessage.of(deltas)
    return ChatOutput(
        text=message.content,
        reasoning=message.reasoning,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        finish_reason=last.finish_reason,
        usage=last.usage,
        timings=last.timings,
        parsed=last.parsed,
        parse_error=last.parse_error,
        logprobs=None if last.logprobs is None else tuple(one for delta in deltas for one in delta.logprobs or ()),
        forced_close=last.forced_close,
        checked=last.checked,
    )


def new_call_id() -> str:
    """An id that no other call has."""
    return f"call_{uuid4().hex}"

"""What the engine answers as LlamaIndex's responses: each holds the answer so far, the last one the whole of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass
from typing import Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llama_index.llms.mlx_agent.errors import llm_errors
from llama_index.llms.mlx_agent.messages import openai_call
from mlx_agent_llm import ChatDelta, Delta, InvalidToolCall, TokenLogprob, Usage

Deltas = Iterator[ChatDelta] | Iterator[Delta]
AsyncDeltas = AsyncIterator[ChatDelta] | AsyncIterator[Delta]


def whole_response(deltas: Deltas, writer: ResponseWriter) -> ChatResponse:
    """The answer that the deltas add up to."""
    with closing(cast("Generator[Any]", deltas)):
        for delta in deltas:
            writer.add(delta)
    return writer.response()


async def awhole_response(deltas: AsyncDeltas, writer: ResponseWriter) -> ChatResponse:
    """Like whole_response, for an event loop."""
    with llm_errors():
        async with aclosing(cast("AsyncGenerator[Any]", deltas)):
            async for delta in deltas:
                writer.add(delta)
    return writer.response()


def stream_responses(deltas: Deltas, writer: ResponseWriter) -> Generator[ChatResponse, None, None]:
    """Yield the answer as it grows; closing the generator closes the deltas."""
    with closing(cast("Generator[Any]", deltas)):
        for delta in deltas:
            if writer.add(delta):
                yield writer.response(delta)


async def astream_responses(deltas: AsyncDeltas, writer: ResponseWriter) -> AsyncGenerator[ChatResponse, None]:
    """Like stream_responses, for an event loop."""
    with llm_errors():
        async with aclosing(cast("AsyncGenerator[Any]", deltas)):
            async for delta in deltas:
                if writer.add(delta):
                    yield writer.response(delta)


@dataclass
class _WrittenCall:
    """A call; its arguments are text while it is written, and a dict when it is whole."""

    id: str
    name: str
    text: str = ""
    arguments: dict[str, Any] | None = None


class ResponseWriter:
    """Adds up the deltas of one answer.

    The message has a ThinkingBlock, a TextBlock and the ToolCallBlocks, of those that there are. Calls stand in
    additional_kwargs["tool_calls"] too, in OpenAI's form, because a part of LlamaIndex looks nowhere else; those that
    cannot be run stand in additional_kwargs["invalid_tool_calls"] alone.
    """

    def __init__(self, model_name: str, token_bytes: Sequence[bytes]) -> None:
        self._model_name = model_name
        self._token_bytes = token_bytes
        self._logprobs: list[list[LogProb]] = []
        self._text = ""
        self._reasoning = ""
        self._calls: list[_WrittenCall] = []
        self._invalid_calls: list[dict[str, Any]] = []
        self._raw: dict[str, Any] | None = None

    def add(self, delta: ChatDelta | Delta) -> bool:
        """Take one delta and return whether there is something new to show."""
        self._text += delta.text
        self._logprobs += [self._ranked(one) for one in delta.logprobs or ()]
        if delta.finish_reason is not None:
            self._raw = _raw(delta, self._model_name)
        if isinstance(delta, Delta):
            return bool(delta.text or delta.finish_reason)
        self._reasoning += delta.reasoning
        self._add_call(delta)
        return bool(delta.text or delta.reasoning or delta.tool_call or delta.finish_reason)

    def response(self, delta: ChatDelta | Delta | None = None) -> ChatResponse:
        """The answer so far, beside the delta that was added last."""
        thought = delta.reasoning if isinstance(delta, ChatDelta) else ""
        return ChatResponse(
            message=self._message(),
            delta=None if delta is None else delta.text,
            raw=self._raw,
            logprobs=list(self._logprobs) or None,
            additional_kwargs={"thinking_delta": thought} if thought else {},
        )

    def _ranked(self, one: TokenLogprob) -> list[LogProb]:
        """The token that was taken, then the most probable ones."""
        ranked = [(one.token_id, one.logprob), *one.top]
        texts = [(self._token_bytes[token_id], logprob) for token_id, logprob in ranked]
        return [LogProb(token=t.decode(errors="replace"), logprob=value, bytes=list(t)) for t, value in texts]

    def _add_call(self, delta: ChatDelta) -> None:
        fragment, finished = delta.tool_call, delta.finished_call
        if fragment is not None and fragment.id is not None:
            self._calls.append(_WrittenCall(fragment.id, fragment.name or ""))
        if fragment is not None:
            self._calls[-1].text += fragment.arguments
        if isinstance(finished, InvalidToolCall):
            self._calls = [call for call in self._calls if call.id != finished.id]
            self._invalid_calls.append(asdict(finished))
        elif finished is not None:
            self._calls[-1].arguments = finished.arguments

    def _message(self) -> ChatMessage:
        blocks: list[ContentBlock] = []
        if self._reasoning:
            blocks.append(ThinkingBlock(content=self._reasoning))
        if self._text or not self._calls:
            blocks.append(TextBlock(text=self._text))
        blocks += [
            ToolCallBlock(
                tool_call_id=call.id,
                tool_name=call.name,
                tool_kwargs=call.text if call.arguments is None else call.arguments,
            )
            for call in self._calls
        ]
        extra: dict[str, Any] = {}
        if self._calls:
            extra["tool_calls"] = [openai_call(call.id, call.name, call.text) for call in self._calls]
        if self._invalid_calls:
            extra["invalid_tool_calls"] = list(self._invalid_calls)
        return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=extra)


def _raw(delta: ChatDelta | Delta, model_name: str) -> dict[str, Any]:
    assert delta.usage is not None and delta.timings is not None
    return {
        "model": model_name,
        "finish_reason": delta.finish_reason,
        "forced_close": delta.forced_close,
        "usage": _usage(delta.usage),
        "timings": asdict(delta.timings),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """Token counts in OpenAI's form; cached_tokens are those of the prompt whose KV was found, not computed."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }

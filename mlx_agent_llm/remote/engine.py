"""RemoteEngine: an engine of another process, with the surface of Engine that the frameworks' classes use."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, replace
from typing import Any, Generic, NamedTuple, TypeVar, Unpack

from mlx_agent_llm.chat import ChatDelta, ChatOutput, as_tool, fold_chat
from mlx_agent_llm.chat.response_format import ResponseFormat, read_response_format
from mlx_agent_llm.engine.chat_options import ChatOptions
from mlx_agent_llm.remote.server import RemoteServer
from mlx_agent_llm.remote.stream import RemoteStream, astream_of
from mlx_agent_llm.remote.tokenizer import RemoteTokenizer
from mlx_agent_llm.request import Delta, RequestOutput, SamplingParams
from mlx_agent_llm.wire import ChatFrame, OutputsFrame, TextFrame, json_of_constraint, json_of_params, read_frame
from mlx_agent_llm.wire.frames import F

Prompt = str | Sequence[int]
T = TypeVar("T")


class RemoteEngine:
    """One model of a server. What a call raises, yields and returns is what Engine's does.

    It is made by asking the server for the model, which loads it. A server that does not answer, or goes away, is an
    EngineClosedError.
    """

    def __init__(self, server: RemoteServer, model: str) -> None:
        told = server.ask("/v1/engine/describe", {"model": model})
        self._server = server
        self._model = model
        self.model_name: str = told["model"]
        self.max_model_len: int = told["max_model_len"]
        self.can_reason: bool = told["can_reason"]
        self.tokenizer = RemoteTokenizer(server, model, told["chat_template"])

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> ChatOutput:
        """Answer chat messages, as Engine.chat does."""
        return fold_chat(self.stream_chat(messages, **options))

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> Iterator[ChatDelta]:
        """Yield an answer as Engine.stream_chat does; closing the iterator closes the connection."""
        return RemoteStream(self._server, *self._chat(messages, options))

    def astream_chat(
        self, messages: Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]
    ) -> AsyncIterator[ChatDelta]:
        """Like stream_chat, for an event loop."""
        return astream_of(self._server, *self._chat(messages, options))

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Delta]:
        """Yield a completion as Engine.stream does; closing the iterator closes the connection."""
        return RemoteStream(self._server, *self._stream(prompt, params))

    def astream(self, prompt: Prompt, params: SamplingParams | None = None) -> AsyncIterator[Delta]:
        """Like stream, for an event loop."""
        return astream_of(self._server, *self._stream(prompt, params))

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams | None = None) -> list[RequestOutput]:
        """Run the prompts as one batch, as Engine.generate does."""
        with closing(RemoteStream(self._server, *self._generate(prompts, params))) as stream:
            return list(next(stream))

    async def agenerate(self, prompts: Sequence[Prompt], params: SamplingParams | None = None) -> list[RequestOutput]:
        """Like generate, for an event loop."""
        async with aclosing(astream_of(self._server, *self._generate(prompts, params))) as stream:
            return list(await anext(stream))

    def count_tokens(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Any] | None = None) -> int:
        """How many tokens a prompt has, as Engine.count_tokens says it."""
        body = {"model": self._model, "messages": messages, "tools": _json_of_tools(tools)}
        count: int = self._server.ask("/v1/engine/count", body)["count"]
        return count

    def _chat(self, messages: Sequence[Mapping[str, Any]], options: ChatOptions) -> _Request[ChatDelta]:
        wanted = read_response_format(options.get("response_format"))
        body = {
            "messages": messages,
            "tools": _json_of_tools(options.get("tools")),
            "tool_choice": options.get("tool_choice"),
            "parallel_tool_calls": options.get("parallel_tool_calls", True),
            "response_format": None if wanted is None else json_of_constraint(wanted.constraint),
            "enable_thinking": options.get("enable_thinking"),
            "documents": options.get("documents"),
            "max_reasoning_tokens": options.get("max_reasoning_tokens"),
        }

        def read(data: str) -> ChatDelta:
            delta = self._learned(read_frame(ChatFrame, data)).delta
            return delta if wanted is None else _with_value(delta, wanted)

        return self._request("/v1/engine/chat", body, options.get("params"), read)

    def _stream(self, prompt: Prompt, params: SamplingParams | None) -> _Request[Delta]:
        def read(data: str) -> Delta:
            return self._learned(read_frame(TextFrame, data)).delta

        return self._request("/v1/engine/stream", {"prompt": prompt}, params, read)

    def _generate(
        self, prompts: Sequence[Prompt], params: SamplingParams | None
    ) -> _Request[tuple[RequestOutput, ...]]:
        def read(data: str) -> tuple[RequestOutput, ...]:
            return self._learned(read_frame(OutputsFrame, data)).outputs

        return self._request("/v1/engine/generate", {"prompts": list(prompts)}, params, read)

    def _request(
        self, path: str, body: dict[str, Any], params: SamplingParams | None, read: Callable[[str], T]
    ) -> _Request[T]:
        sampling = json_of_params(params or SamplingParams())
        return _Request(path, {"model": self._model, **body, "params": sampling}, read)

    def _learned(self, frame: F) -> F:
        self.tokenizer.token_bytes.learn(frame.token_bytes)
        return frame


class _Request(NamedTuple, Generic[T]):
    """Where a request goes, what it says, and what reads an event of the answer."""

    path: str
    body: dict[str, Any]
    read: Callable[[str], T]


def _json_of_tools(tools: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    return None if tools is None else [{"type": "function", "function": asdict(as_tool(tool))} for tool in tools]


def _with_value(delta: ChatDelta, wanted: ResponseFormat) -> ChatDelta:
    """The delta with the value of the class that was asked for, which the server knows as a schema."""
    if delta.parsed is None or wanted.model is None:
        return delta
    parsed = wanted.parse(json.dumps(delta.parsed))
    return replace(delta, parsed=parsed.value, parse_error=parsed.error)

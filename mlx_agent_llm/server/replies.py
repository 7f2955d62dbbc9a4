"""What every chat API asks an engine for, and the replies to it as one stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_agent_llm.chat import ChatDelta, prepare_chat
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.chat_handle import ChatHandle
from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.engine.in_thread import in_thread
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.server.api_error import check_not_cancelled, invalid
from mlx_agent_llm.server.body import check_count
from mlx_agent_llm.server.history import check_calls_are_answered
from mlx_agent_llm.server.merged import merged
from mlx_agent_llm.server.places import Places, told_by
from mlx_agent_llm.server.reply_events import ReplyEnd, ReplyEvent, ReplyReader, WholeReply, fold_reply
from mlx_agent_llm.server.settings import ServerSettings


@dataclass(frozen=True)
class ChatCall:
    """A chat request in the engine's terms, whichever API it came by.

    options: of the reply, as Engine.chat has them. sampling: fields of SamplingParams beside max_tokens and n.
    needs_results: whether every call among the messages must have its result. places: of the messages in the request,
    None where they stand there as they are.
    """

    messages: Sequence[Mapping[str, Any]]
    options: ReplyOptions
    sampling: Mapping[str, Any]
    max_tokens: int | None = None
    max_reasoning_tokens: int | None = None
    n: int = 1
    needs_results: bool = True
    places: Places | None = None

    def samples(self, default_max_tokens: int) -> list[SamplingParams]:
        """The parameters of each of n replies; the i-th has seed + i."""
        max_tokens = default_max_tokens if self.max_tokens is None else self.max_tokens
        params = SamplingParams(**self.sampling, max_tokens=max_tokens, n=self.n)
        seeds = [None if params.seed is None else params.seed + index for index in range(self.n)]
        return [SamplingParams(**{**self.sampling, "seed": seed}, max_tokens=max_tokens) for seed in seeds]

    def check(self, settings: ServerSettings) -> None:
        """Raise an APIError or a RequestError for what is beyond the server's bounds, or is no conversation."""
        tools = self.options.get("tools") or ()
        check_count("messages", len(self.messages), settings.max_messages)
        check_count("tools", len(tools), settings.max_tools)
        if not 1 <= self.n <= settings.max_n:
            raise invalid(f"n={self.n} must be between 1 and {settings.max_n}", "n", "invalid_value")
        with told_by(self.places):
            _check_sizes({"tools": tools, "response_format": self.options.get("response_format")}, settings)
            if self.needs_results:
                check_calls_are_answered(self.messages)


def prompt_token_ids(engine: Engine, call: ChatCall) -> list[int]:
    """The prompt of a call: as many tokens as its usage would say."""
    with told_by(call.places):
        chat = prepare_chat(engine.tokenizer, call.messages, tool_format=engine.config.tool_format, **call.options)
    return chat.prompt_token_ids


async def start_replies(engine: Engine, call: ChatCall, settings: ServerSettings, held: ExitStack) -> Replies:
    """Submit a call; what is wrong with it is raised here. The requests are cancelled when `held` is closed."""
    call.check(settings)
    options: dict[str, Any] = {**call.options, "max_reasoning_tokens": call.max_reasoning_tokens}
    handles: list[ChatHandle] = []
    with told_by(call.places):
        for params in call.samples(default_max_tokens(engine, settings)):
            start = partial(engine.submit_chat, call.messages, params=params, **options)
            handles.append(await in_thread(start, ChatHandle.cancel))
            held.callback(handles[-1].cancel)
    return Replies(handles, held)


def default_max_tokens(engine: Engine, settings: ServerSettings) -> int:
    """How long a reply may be where a request does not say: at most half of what fits."""
    return max(1, min(settings.default_max_tokens, engine.max_request_tokens // 2))


class Replies:
    """Yields (index, event) of all replies as they come, to one `async for`; the error of one is the error of all."""

    def __init__(self, handles: Sequence[ChatHandle], held: ExitStack) -> None:
        self._handles = handles
        self._held = held
        self.num_prompt_tokens = handles[0].num_prompt_tokens

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._handles)

    def cancel(self) -> None:
        """End the replies; whoever waits for them is told."""
        for handle in self._handles:
            handle.cancel()

    def deltas(self) -> AsyncIterator[tuple[int, ChatDelta]]:
        """(index, delta) as the engine gives them."""
        return merged(self._handles, self._held)

    async def __aiter__(self) -> AsyncIterator[tuple[int, ReplyEvent]]:
        readers = [ReplyReader() for _ in self._handles]
        async for index, delta in self.deltas():
            for event in readers[index].read(delta):
                if isinstance(event, ReplyEnd):
                    check_not_cancelled(event.finish_reason)
                yield index, event


async def whole_replies(replies: Replies) -> list[WholeReply]:
    """All replies in order, once they have ended."""
    events: list[list[ReplyEvent]] = [[] for _ in range(replies.count)]
    async for index, event in replies:
        events[index].append(event)
    return [fold_reply(one) for one in events]


def _check_sizes(schemas: Mapping[str, Any], settings: ServerSettings) -> None:
    most = settings.max_schema_bytes
    for name, schema in schemas.items():
        if (size := len(json.dumps(schema, default=str))) > most:
            raise RequestError(f"{name}=<{size} bytes> must be at most {most} bytes")

"""TracedStreams: LangChain tells a model the id of a run for whole answers alone, and not for those that it streams.

Nor for whole answers that it streams because a callback wants their tokens, as a graph's stream_mode="messages" does.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseRunManager, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

_run_id: ContextVar[str | None] = ContextVar("_run_id", default=None)


class TracedStreams(BaseChatModel):
    """A chat model whose streams get the run's id as their trace_id, unless they are given another one."""

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The answer as it is written."""
        config = _with_run_id(config)
        yield from super().stream(input, config, stop=stop, **{"trace_id": str(config["run_id"]), **kwargs})

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Like stream, for an event loop."""
        config = _with_run_id(config)
        stream = super().astream(input, config, stop=stop, **{"trace_id": str(config["run_id"]), **kwargs})
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", stream)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _in_run(run_manager):
            return super()._generate_with_cache(messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _in_run(run_manager):
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)


def trace_id_of(run: BaseRunManager | None) -> str | None:
    """The id of the run, or of that whose answer is being streamed; None without either."""
    return _run_id.get() if run is None else str(run.run_id)


@contextmanager
def _in_run(run: BaseRunManager | None) -> Iterator[None]:
    """A run that _stream and _astream are not told of; an argument would be part of the key of LangChain's cache."""
    token = _run_id.set(trace_id_of(run))
    try:
        yield
    finally:
        _run_id.reset(token)


def _with_run_id(config: RunnableConfig | None) -> RunnableConfig:
    """The config of the call, with an id that LangChain takes for its run."""
    given = ensure_config(config)
    return {**given, "run_id": given.get("run_id") or uuid.uuid4()}

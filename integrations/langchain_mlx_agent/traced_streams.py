"""TracedStreams: LangChain tells a model the id of a run for whole answers alone, and not for those that it streams."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config


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


def _with_run_id(config: RunnableConfig | None) -> RunnableConfig:
    """The config of the call, with an id that LangChain takes for its run."""
    given = ensure_config(config)
    return {**given, "run_id": given.get("run_id") or uuid.uuid4()}

"""The caller's end of one chat request: its deltas and its cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from mlx_agent_llm.chat import ChatDelta, ChatParser
from mlx_agent_llm.engine.handle import Handle


class ChatHandle:
    """Yields a chat's deltas once, to one `for` or one `async for`; a request that failed raises its error there.

    num_prompt_tokens: of the prompt that the messages became.
    """

    def __init__(self, handle: Handle, parser: ChatParser, num_prompt_tokens: int) -> None:
        self._handle = handle
        self._parser = parser
        self.num_prompt_tokens = num_prompt_tokens

    def cancel(self) -> None:
        """Ask the engine to end the request, as Handle.cancel does."""
        self._handle.cancel()

    def __iter__(self) -> Iterator[ChatDelta]:
        for delta in self._handle:
            yield from self._parser.feed(delta)

    async def __aiter__(self) -> AsyncIterator[ChatDelta]:
        async for delta in self._handle:
            for chat_delta in self._parser.feed(delta):
                yield chat_delta

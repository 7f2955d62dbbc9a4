"""LlamaIndex's callbacks around streams, with an end that reaches the engine.

LlamaIndex's own decorators drop the stream that they wrap when theirs is closed, and count on its deletion. An observer
that keeps the exception of that end (LlamaDebugHandler does) keeps the frames that hold the stream, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from functools import wraps
from typing import Any

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def observed_stream(callback: Decorator) -> Decorator:
    """Decorate a method that returns a generator by one of LlamaIndex's callbacks."""

    def decorate(method: Callable[..., Generator[Any, None, None]]) -> Callable[..., Any]:
        @wraps(method)
        def stream(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            opened: list[Generator[Any, None, None]] = []

            def open_one(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
                opened.append(method(*args, **kwargs))
                return opened[0]

            return _until_both_are_closed(callback(open_one)(self, *args, **kwargs), opened[0])

        return stream

    return decorate


def observed_astream(callback: Decorator) -> Decorator:
    """Decorate an async method that returns an async generator by one of LlamaIndex's callbacks."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            opened: list[AsyncGenerator[Any, None]] = []

            async def open_one(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
                opened.append(await method(*args, **kwargs))
                return opened[0]

            return _auntil_both_are_closed(await callback(open_one)(self, *args, **kwargs), opened[0])

        return astream

    return decorate


def _until_both_are_closed(
    observed: Generator[Any, None, None], opened: Generator[Any, None, None]
) -> Generator[Any, None, None]:
    with closing(opened), closing(observed):
        yield from observed


async def _auntil_both_are_closed(
    observed: AsyncGenerator[Any, None], opened: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    async with aclosing(opened), aclosing(observed):
        async for response in observed:
            yield response

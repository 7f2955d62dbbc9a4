"""Several streams of an engine as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class _Ended(NamedTuple):
    """A stream's end, with the error that it ended in."""

    error: BaseException | None


async def merged(streams: Sequence[AsyncIterable[T]], held: ExitStack) -> AsyncIterator[tuple[int, T]]:
    """(index, item) of all streams as they come; the error of one is raised. Reading stops when `held` is closed."""
    arrived: asyncio.Queue[tuple[int, T] | _Ended] = asyncio.Queue()
    for index, stream in enumerate(streams):
        held.callback(asyncio.create_task(_read(index, stream, arrived)).cancel)
    num_open = len(streams)
    while num_open:
        item = await arrived.get()
        if not isinstance(item, _Ended):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            num_open -= 1


async def _read(index: int, stream: AsyncIterable[T], arrived: asyncio.Queue[tuple[int, T] | _Ended]) -> None:
    try:
        async for item in stream:
            arrived.put_nowait((index, item))
    except Exception as error:
        arrived.put_nowait(_Ended(error))
    else:
        arrived.put_nowait(_Ended(None))

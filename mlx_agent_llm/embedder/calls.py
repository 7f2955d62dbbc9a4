"""Calls that wait for vectors, and which of their texts are computed next; knows no MLX and no threads."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Call:
    """The tokenized texts of one caller, and the future of their vectors, in the texts' order.

    num_first: how many of a text's tokens are of the first type, all of them unless it is a pair of texts.
    """

    def __init__(self, token_ids: Sequence[list[int]], num_first: Sequence[int], dimensions: int) -> None:
        self.token_ids = token_ids
        self.num_first = num_first
        self.future = Future[Vectors]()
        self.left = sorted(range(len(token_ids)), key=self.length)  # what no batch has taken; the longest last
        self._vectors = np.empty((len(token_ids), dimensions), np.float32)
        self._num_missing = len(token_ids)

    def length(self, index: int) -> int:
        """The number of tokens of a text."""
        return len(self.token_ids[index])

    def deliver(self, index: int, vector: Vectors) -> None:
        """Keep the vector of one text; the last one completes the future."""
        self._vectors[index] = vector
        self._num_missing -= 1
        if self._num_missing == 0:
            self.future.set_result(self._vectors)


class Row(NamedTuple):
    """One text of a call, as part of a batch."""

    call: Call
    position: int  # in it

    @property
    def token_ids(self) -> list[int]:
        """The text's tokens."""
        return self.call.token_ids[self.position]

    @property
    def num_first(self) -> int:
        """How many of them are of the first type."""
        return self.call.num_first[self.position]


class PendingCalls:
    """Calls whose texts were not all taken, in the order in which each may lead a batch.

    A batch begins with the longest text of the call whose turn it is, and is filled with texts of all calls that are
    little shorter: padding is little, a single text joins the batch of others, and a large call delays a small one by
    one batch for each call before it.
    """

    def __init__(self, max_tokens: int, min_fill: float, few_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._min_fill = min_fill
        self._few_tokens = few_tokens
        self._calls = deque[Call]()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, call: Call) -> None:
        """Let a call wait for its turn."""
        self._calls.append(call)

    def take_batch(self) -> list[Row]:
        """The rows of the next batch: padded to the first one's length they are at most max_tokens tokens, or one row.

        A row is shorter than min_fill times the first only among few_tokens tokens, which cost no more with padding.
        """
        longest = max(1, self._calls[0].length(self._calls[0].left[-1]))
        rows = list[Row]()
        num_alike, num_any = max(1, self._max_tokens // longest), self._few_tokens // longest
        for count, shortest in ((num_alike, self._min_fill * longest), (num_any, 0)):
            for call in self._calls:
                taken = _take(call, longest, shortest, count - len(rows))
                rows.extend(Row(call, index) for index in taken)
        self._calls.rotate(-1)
        self._calls = deque(call for call in self._calls if call.left)
        return rows

    def take_all(self) -> Iterable[Call]:
        """Empty the queue, into the calls that it held."""
        calls, self._calls = self._calls, deque()
        return calls

    def drop(self, call: Call) -> None:
        """Take no more texts of a call."""
        if call in self._calls:
            self._calls.remove(call)


def _take(call: Call, longest: int, shortest: float, count: int) -> list[int]:
    """Take up to count texts of a call, the longest of those between two lengths first."""
    stop = bisect_right(call.left, longest, key=call.length)
    start = max(stop - count, 0)
    while start < stop and call.length(call.left[start]) < shortest:
        start += 1
    taken = call.left[start:stop]
    del call.left[start:stop]
    return taken[::-1]

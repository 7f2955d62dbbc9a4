"""Where a text has been like this before: chains of equal pairs, in which the match finders of LZ77 search."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

_NUM_CANDIDATES = 8  # that are compared, the latest first
_MAX_COMPARED = 32  # tokens of each
_MAX_PAIRS = 2**16  # about 10 MB


class Match(NamedTuple):
    """The text's last `length` tokens, two at least, stand before its token `end` too."""

    end: int
    length: int


class NgramIndex:
    """Finds earlier places of a text's end; it grows with the text, and of a long one it knows the later part.

    token_ids: the text, one token at least, which somebody else appends to.
    """

    def __init__(self, token_ids: Sequence[int], max_pairs: int = _MAX_PAIRS) -> None:
        self._token_ids = token_ids
        self._max_pairs = max_pairs
        self._latest: dict[tuple[int, int], int] = {}  # pair -> after which token it ended last; 0 is never
        self._before = array("i", [0, 0])  # after each token: where the pair that ends there ended before

    def grow(self) -> None:
        """Take in what the text has got meanwhile."""
        tokens, before, latest = self._token_ids, self._before, self._latest
        for end in range(len(before), len(tokens) + 1):
            pair = (tokens[end - 2], tokens[end - 1])
            before.append(latest.get(pair, 0))
            latest[pair] = end
        if len(latest) > self._max_pairs:
            self._forget_the_first()

    def longest(self) -> Match | None:
        """The longest match of the text's end, the latest of equally long ones."""
        tokens, last = self._token_ids, len(self._before) - 1
        best, length = 0, 0
        end = self._before[-1]
        for _ in range(_NUM_CANDIDATES):
            if end == 0:
                break
            if end > length and tokens[end - 1 - length] == tokens[last - 1 - length]:  # or it is no longer one
                found = self._num_equal_before(end)
                if found > length:
                    best, length = end, found
            end = self._before[end]
        return Match(best, length) if length else None

    def _num_equal_before(self, end: int) -> int:
        tokens, last, count = self._token_ids, len(self._before) - 1, 2
        most = min(end, _MAX_COMPARED)
        while count < most and tokens[end - 1 - count] == tokens[last - 1 - count]:
            count += 1
        return count

    def _forget_the_first(self) -> None:
        """Know the later half of what is too much."""
        first = len(self._before) - self._max_pairs // 2
        self._latest = {pair: end for pair, end in self._latest.items() if end >= first}
        self._before[:] = array("i", (end if end >= first else 0 for end in self._before))

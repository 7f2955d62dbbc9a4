"""Texts as tokens: the fewest that spell a text, and whether one could go on where a text ends."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

_UTF8_BYTES = [*range(0xC0), *range(0xC2, 0xF5)]


class Spelling:
    """What the tokens of a vocabulary spell.

    token_bytes: the bytes of each token id, none for those that are no text. control_texts: of control tokens, which
    are used where a grammar names their texts. end_token_ids: are never used.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        control_texts: Mapping[int, str],
        end_token_ids: Collection[int],
    ) -> None:
        self._token_bytes = token_bytes
        self._control_texts = {token_id: text.encode() for token_id, text in control_texts.items()}
        self._control_ids = {text: token_id for token_id, text in self._control_texts.items()}
        self._token_ids: dict[bytes, int] = {}
        self._longest: dict[bytes, int] = {}  # by the first two bytes: few tokens are as long as the longest of all
        for token_id, data in enumerate(token_bytes):
            if data and token_id not in end_token_ids:
                self._token_ids.setdefault(data, token_id)
                self._longest[data[:2]] = max(self._longest.get(data[:2], 0), len(data))

    @cached_property
    def _sorted(self) -> list[bytes]:
        return sorted(self._token_ids)

    @cached_property
    def has_every_byte(self) -> bool:
        """Whether all texts can be spelled because each byte of UTF-8 is a token by itself."""
        return all(bytes([byte]) in self._token_ids for byte in _UTF8_BYTES)

    def is_ordinary(self, token_id: int) -> bool:
        """Whether the token is text by itself, and no control token."""
        return token_id < len(self._token_bytes) and bool(self._token_bytes[token_id])

    def text_of(self, token_id: int) -> bytes:
        """The bytes that a token writes."""
        return self._token_bytes[token_id] if self.is_ordinary(token_id) else self._control_texts.get(token_id, b"")

    def fewest_tokens(self, data: bytes, markers: Collection[str]) -> list[int]:
        """The fewest tokens that spell the data, control tokens only where they spell one of the markers."""
        (counts, lengths), marked = self._count(data, markers), self._marked(markers)
        assert math.isfinite(counts[0]), f"no tokens spell {data!r}"
        token_ids, begin = [], 0
        while begin < len(data):
            piece = data[begin : begin + lengths[begin]]
            token_ids.append(self._control_ids[piece] if piece in marked else self._token_ids[piece])
            begin += len(piece)
        return token_ids

    def counts(self, data: bytes, markers: Collection[str]) -> list[float]:
        """(len(data) + 1,) how many tokens the data from each byte on takes at least; infinite where none spell it."""
        return self._count(data, markers)[0]

    def has_longer(self, data: bytes) -> bool:
        """Whether some token begins with the data and goes on."""
        index = bisect_right(self._sorted, data)
        return index < len(self._sorted) and self._sorted[index].startswith(data)

    def _count(self, data: bytes, markers: Collection[str]) -> tuple[list[float], list[int]]:
        """Token counts from each byte on, and the lengths of their first tokens, from the end to the beginning."""
        counts, lengths = [math.inf] * len(data) + [0.0], [0] * len(data)
        marked = self._marked(markers)
        for begin in reversed(range(len(data))):
            longest = self._longest.get(data[begin : begin + 2], 1)
            ends = [begin + len(marker) for marker in marked if data.startswith(marker, begin)]
            for end in range(begin + 1, min(begin + longest, len(data)) + 1):
                if data[begin:end] in self._token_ids:
                    ends.append(end)
            if ends:
                end = min(ends, key=counts.__getitem__)
                counts[begin], lengths[begin] = counts[end] + 1, end - begin
        return counts, lengths

    def _marked(self, markers: Collection[str]) -> list[bytes]:
        """Sorted, because the order of a set of texts is another one in each process."""
        return sorted({marker.encode() for marker in markers} & self._control_ids.keys())

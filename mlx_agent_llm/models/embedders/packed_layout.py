"""The tokens of a batch one after the other, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Group(NamedTuple):
    """Texts of one length, one after the other: their rows are num_texts * length from start on."""

    start: int
    num_texts: int
    length: int

    @property
    def rows(self) -> slice:
        """Where their tokens are."""
        return slice(self.start, self.start + self.num_texts * self.length)


class PackedLayout:
    """Texts (B,) of these lengths as T rows of tokens, the shortest text first.

    num_padded: the length L that they are padded to elsewhere.
    """

    def __init__(self, lengths: NDArray[np.int32], num_padded: int) -> None:
        order = np.argsort(lengths, kind="stable")
        self._shape = len(lengths), num_padded
        self._texts = np.repeat(order, lengths[order])  # (T,) whose text a row is
        self.positions = np.concatenate([np.arange(length) for length in lengths[order]])  # (T,) of it in its text
        self.groups = list(_groups(lengths[order]))
        self._rotations = dict[tuple[float, int], tuple[NDArray[np.float32], NDArray[np.float32]]]()

    def pack(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, L, W) -> (T, W)."""
        packed: NDArray[np.float32] = values[self._texts, self.positions]
        return packed

    def unpack(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, W) -> (B, L, W), with zeros for padding."""
        padded = np.zeros((*self._shape, values.shape[-1]), np.float32)
        padded[self._texts, self.positions] = values
        return padded

    def first(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, W) -> (B, W), of each text's first token in the order of the texts; zeros of one without any."""
        found = np.zeros((self._shape[0], values.shape[-1]), np.float32)
        are_first = self.positions == 0
        found[self._texts[are_first]] = values[are_first]
        return found

    def rotation(self, base: float, num_pairs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The cosine and sine (T, 1, num_pairs) of the angles that pairs of a head's values are turned by."""
        if (base, num_pairs) not in self._rotations:
            speeds = base ** (-np.arange(num_pairs) / num_pairs)
            angles = self.positions[:, None, None] * speeds
            self._rotations[base, num_pairs] = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return self._rotations[base, num_pairs]


def _groups(lengths: NDArray[np.int32]) -> Iterator[Group]:
    """Of sorted lengths; a text without a token has no rows."""
    start = 0
    for length, count in zip(*np.unique(lengths[lengths > 0], return_counts=True), strict=True):
        yield Group(start, int(count), int(length))
        start += int(count) * int(length)

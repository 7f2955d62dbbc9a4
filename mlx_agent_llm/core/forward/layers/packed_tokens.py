"""Packed tokens, (T, 1, ...), in the shapes in which a model's own modules take a sequence, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map


def turned(value: Any) -> Any:
    """An array (S, 1, ...) as (1, S, ...), or the other way round; anything else as it is."""
    return value.swapaxes(0, 1) if isinstance(value, mx.array) else value


def joined(parts: Sequence[Any], num_padding: int) -> Any:
    """Trees of results one after the other, and nothing for the padding; of what is no array the first one's."""

    def join(*arrays: Any) -> Any:
        if not isinstance(arrays[0], mx.array):
            return arrays[0]
        padding = [mx.zeros((num_padding, *arrays[0].shape[1:]), dtype=arrays[0].dtype)] if num_padding else []
        return mx.concatenate([*arrays, *padding]) if len(arrays) + len(padding) > 1 else arrays[0]

    return tree_map(join, parts[0], *parts[1:])

"""One forward of an encoder over the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_agent_llm.embedder.calls import Row, Vectors
from mlx_agent_llm.models.embedders import TextBatch
from mlx_agent_llm.process.allocator import keep_freed_buffers
from mlx_agent_llm.process.default_device import default_device

MAX_TOKENS = {mx.cpu: 512, mx.gpu: 8192}  # on a CPU what its cache holds
FEW_TOKENS = {mx.cpu: 0, mx.gpu: 2048}  # no dearer than the 8 ms that a forward takes anyway on an H100


class EncoderForward:
    """Runs a model over rows: a TextBatch (B, L) -> (B, D). On a GPU, which computes padding, lengths are near."""

    def __init__(self, model: nn.Module, device: mx.Device) -> None:
        if device.type == mx.cpu:
            keep_freed_buffers()
        self.max_begun = 1 if device.type == mx.cpu else 2  # a GPU computes one while the next one is made
        self._model: nn.Module | None = model
        self._device = device
        self.max_tokens = MAX_TOKENS[device.type]
        self.few_tokens = FEW_TOKENS[device.type]
        self.min_fill = 0.8 if device.type == mx.gpu else 0.0

    def begin(self, rows: Sequence[Row]) -> Callable[[], Vectors]:
        """See the class."""
        assert self._model is not None
        lengths = np.array([len(row.token_ids) for row in rows], np.int32)
        tokens = np.zeros((len(rows), lengths.max()), np.int32)
        for row, (ids, length) in enumerate(zip((row.token_ids for row in rows), lengths, strict=True)):
            tokens[row, :length] = ids
        num_first = np.array([row.num_first for row in rows], np.int32)
        with default_device.set_to(self._device):
            arrays = mx.array(tokens), mx.array(lengths), mx.array(num_first)
            vectors = self._model(TextBatch(*arrays, is_padded=bool(lengths.min() < lengths.max())))
        mx.async_eval(vectors)
        return partial(np.array, vectors)

    def close(self) -> None:
        """Drop the model."""
        self._model = None

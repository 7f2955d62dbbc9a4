"""What blocks and slots hold, as bytes: read from the pools and put into them, while no forward is under way.

A pending read would hold a pool, and the next write would copy it; so what is read here is evaluated at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.kv.tier.segment import Bytes

Kind = Literal["full", "window", "state"]  # of the group of layers that a block or a slot is of


class Read(NamedTuple):
    """The bytes of a block or slot, (num_bytes,), and whether all numbers in it are finite."""

    content: Bytes
    is_finite: bool


class Contents:
    """The bytes of blocks and slots, layer after layer and array after array."""

    def __init__(self, runner: ModelRunner, block_size: int) -> None:
        self._runner = runner
        self._block_size = block_size

    @property
    def layout(self) -> bytes:
        """Which layers' blocks are of which kind."""
        return bytes(layer.reads_window_tables for layer in self._runner.settled_layers().paged)

    def block_bytes(self, kind: Kind) -> int:
        """The bytes of one block in the layers of this kind."""
        with self._runner.on_device():
            slots = self._slots([0])
            arrays = [array for layer in self._layers(kind) for array in layer.read(slots)]
            return sum(array.nbytes for array in arrays)  # they are not evaluated

    def read_blocks(self, kind: Kind, block_ids: Sequence[int]) -> list[Read]:
        """What each block holds."""
        with self._runner.on_device():
            slots, count = self._slots(block_ids), len(block_ids)
            read = [array for layer in self._layers(kind) for array in layer.read(slots) if array.size]
            if not read:
                return [Read(np.empty(0, np.uint8), True)] * count
            flat = [array.reshape(count, -1) for array in read]
            are_finite = mx.stack([mx.isfinite(array).all(axis=1) for array in flat]).all(axis=0)
            raw = mx.concatenate([array.view(mx.uint8) for array in flat], axis=1)
            mx.eval(raw, are_finite)
        flags: Any = are_finite.tolist()
        return [Read(*pair) for pair in zip(np.array(raw), flags, strict=True)]

    def write_blocks(self, kind: Kind, block_ids: Sequence[int], contents: Sequence[Bytes]) -> None:
        """Put what read_blocks returned into blocks."""
        with self._runner.on_device():
            slots, count = self._slots(block_ids), len(block_ids)
            raw, begin = mx.array(np.stack(contents)), 0
            layers = self._layers(kind)
            for layer in layers:
                arrays = []
                for like in layer.read(slots):
                    end = begin + like.nbytes // count
                    arrays.append(_as(raw[:, begin:end], like))
                    begin = end
                layer.write(slots, *arrays)
            mx.eval([_writes(layer) for layer in layers])

    def read_state(self, slot: int) -> Read | None:
        """What a slot holds in all recurrent layers; None where it holds nothing."""
        states = [layer.read_slot(slot) for layer in self._runner.settled_layers().states]
        arrays = [array for state in states for array in state]
        if not arrays or any(array is None for array in arrays):
            return None
        with self._runner.on_device():
            is_finite = mx.stack([mx.isfinite(array).all() for array in arrays]).all()
            raws = [mx.contiguous(array).reshape(-1).view(mx.uint8) for array in arrays]
            mx.eval(is_finite, raws)
        header = json.dumps([[str(array.dtype).rpartition(".")[2], list(array.shape)] for array in arrays]).encode()
        parts = [len(header).to_bytes(4, "little") + header, *(np.array(raw).tobytes() for raw in raws)]
        return Read(np.frombuffer(b"".join(parts), np.uint8), bool(is_finite.item()))

    def write_state(self, slot: int, content: Bytes) -> None:
        """Put what read_state returned into a slot."""
        begin = 4 + int.from_bytes(content[:4].tobytes(), "little")
        shapes = json.loads(content[4:begin].tobytes())
        arrays: list[mx.array] = []
        with self._runner.on_device():
            for name, dims in shapes:
                dtype: mx.Dtype = getattr(mx, name)
                end = begin + prod(dims) * dtype.size
                arrays.append(mx.array(content[begin:end]).view(dtype).reshape(dims))
                begin = end
            mx.eval(arrays)
        for layer in self._runner.settled_layers().states:
            layer.write_slot(slot, [arrays.pop(0) for _ in range(layer.num_arrays)])

    def _layers(self, kind: Kind) -> list[PagedLayer]:
        paged = self._runner.settled_layers().paged
        return [layer for layer in paged if layer.reads_window_tables == (kind == "window")]

    def _slots(self, block_ids: Sequence[int]) -> mx.array:
        slots = np.array(block_ids, np.int32)[:, None] * self._block_size + np.arange(self._block_size, dtype=np.int32)
        return mx.array(slots.reshape(-1))


def _as(raw: mx.array, like: mx.array) -> mx.array:
    """(blocks, num_bytes) as an array of that shape and type."""
    if like.size == 0:
        return mx.zeros(like.shape, like.dtype)
    return mx.contiguous(raw).view(like.dtype).reshape(like.shape)


def _writes(layer: PagedLayer) -> list[mx.array]:
    """What is there when the layer's pools are written."""
    return [pool for pool in (layer.keys, layer.values) if pool.size] if layer.written is None else [layer.written]

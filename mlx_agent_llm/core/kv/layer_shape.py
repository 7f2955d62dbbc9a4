"""What one layer keeps of a token or of a sequence, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels.checks import is_for_products


class KVShape(NamedTuple):
    """What one attention layer stores for a token, and how far a token sees."""

    kv_heads: int
    key_dim: int  # of a latent layer the latent's...
    value_dim: int  # ...and the rotary part's
    dtype: mx.Dtype
    window: int | None = None  # the last tokens that a token sees, itself among them; None is all
    is_chunked: bool = False  # the window begins anew at each multiple of it
    is_latent: bool = False  # multi-head latent attention: keys are both parts, and values the first one
    is_gathered: bool = False  # the model's own module attends, over what it sees of a sequence

    @property
    def is_read_by_copies(self) -> bool:
        """Whether attention copies all that a row sees before it is multiplied, on any device."""
        return self.is_gathered or self.is_latent or is_for_products(self.key_dim, self.value_dim)

    @property
    def num_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.size


class ArrayShape(NamedTuple):
    """One array of a recurrent layer's state."""

    dims: tuple[int, ...]
    dtype: mx.Dtype


class StateShape(NamedTuple):
    """What one recurrent layer stores for a sequence, however long it is."""

    arrays: tuple[ArrayShape, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of one sequence's state."""
        return sum(prod(array.dims) * array.dtype.size for array in self.arrays)


LayerShape = KVShape | StateShape


def as_computed(shapes: Sequence[LayerShape], dtype: mx.Dtype | None) -> list[LayerShape]:
    """The shapes of a model that computes attention in this type, None being the one that they have."""
    return [shape._replace(dtype=dtype) if isinstance(shape, KVShape) and dtype else shape for shape in shapes]


def token_bytes(shapes: Sequence[LayerShape]) -> int:
    """Bytes that all layers store for a token."""
    return sum(shape.num_bytes for shape in shapes if isinstance(shape, KVShape))


def sees_window(shape: LayerShape, window: int) -> bool:
    """Whether a layer sees no more than `window` tokens, 0 meaning that no layer has a window."""
    return isinstance(shape, KVShape) and shape.window is not None and shape.window <= window


def state_bytes(shapes: Sequence[LayerShape]) -> int:
    """Bytes that all layers store for a sequence."""
    return sum(shape.num_bytes for shape in shapes if isinstance(shape, StateShape))

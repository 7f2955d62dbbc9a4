"""How each device likes its forwards: what was measured of them, in one value a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_agent_kernels import backend
from mlx_agent_kernels.loader import Backend
from mlx_agent_llm.core.batch.packing import Packing
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.forward.fast import cpu_modules, gpu_modules
from mlx_agent_llm.core.forward.fast.adaptation import Adapt
from mlx_agent_llm.core.kv.layer_shape import KVShape, LayerShape, token_bytes
from mlx_agent_llm.core.kv.memory import PoolSizes


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What a runner does on one kind of device."""

    backend: Backend
    speed_up: Adapt  # gives a model's modules the forms that are faster here
    keeps_freed_buffers: bool  # tells the C library to
    compiles_rows: bool  # traces a forward of rows alone once for each of few shapes
    waits_before_dispatch: bool  # for the forward before
    min_tokens: int  # of a batch
    max_row_chunk: int  # tokens of a chunk that attend as rows of their own
    level_bytes: int  # that a layer could read while the launches of a shared level take place
    level_copies: float  # how often a group's blocks are moved
    # What is compiled before the first request: so many rows, one of so many tokens.
    warm_rows: tuple[int, ...]
    warm_tokens: int

    def packing(self, shapes: Sequence[LayerShape], sizes: PoolSizes, block_size: int, *, in_buckets: bool) -> Packing:
        """How batches for layers of these shapes are packed."""
        paged = [shape for shape in shapes if isinstance(shape, KVShape)]
        num_paged = len(paged)
        block_bytes = max(block_size * token_bytes(shapes) / max(num_paged, 1), 1)  # of a mean layer
        is_gathered = any(shape.is_gathered for shape in paged)  # then each sequence is read alone
        by_copies = any(shape.is_read_by_copies for shape in paged)  # which the tokens of a chunk should have in common
        return Packing(
            sizes.num_blocks,
            min_tokens=self.min_tokens,
            in_buckets=in_buckets,
            max_row_chunk=1 if by_copies else self.max_row_chunk,
            has_states=num_paged < len(shapes),
            window=sizes.window,
            window_padding_block=sizes.num_window_blocks,
            costs=SharingCosts(math.inf if is_gathered else self.level_bytes / block_bytes, self.level_copies),
            warm_rows=self.warm_rows,
            warm_blocks=-(-self.warm_tokens // block_size),
        )


CPU = DeviceProfile(
    backend="reference",
    speed_up=cpu_modules.speed_up_modules,
    keeps_freed_buffers=True,
    compiles_rows=False,  # it builds the graph while it computes
    # A task that is pending holds the buffers of its inputs, so the writes of a forward dispatched after it would copy
    # the pools instead of happening in place (measured: 336 ms a step instead of 115).
    waits_before_dispatch=True,
    min_tokens=2,  # a product of one row takes longer than one of two: 38 against 29 ms for a 135M model (MKL, float32)
    max_row_chunk=1,  # as rows of their own a chunk's tokens are no faster
    level_bytes=1_000_000,  # it gains from about there on (2 to 16 rows of a 135M model's layers)
    level_copies=1.0,
    warm_rows=(1,),
    warm_tokens=0,
)
CUDA = DeviceProfile(
    backend="cuda",
    speed_up=gpu_modules.speed_up_modules,
    keeps_freed_buffers=False,
    compiles_rows=True,
    waits_before_dispatch=False,
    min_tokens=1,
    # 16 chunks of 30 tokens on 4,096 take 11 ms as rows and 59 ms one by one, and MLX's attention takes 50 ms more
    # where it meets new lengths (docs/gpu.md).
    max_row_chunk=512,
    level_bytes=50_000_000,  # 12 us at 4 TB/s
    level_copies=1.5,  # parts are written and read again
    # A product has kernels for up to 8 rows, for more, and for so many that they fill the GPU; one row of so many
    # tokens is read in parts, many that share them read them together.
    warm_rows=(1, 16, 64),
    warm_tokens=2048,
)
METAL = DeviceProfile(  # guesses on the safe side: nothing was measured
    backend="metal",
    speed_up=gpu_modules.speed_up_modules,
    keeps_freed_buffers=False,
    compiles_rows=True,
    waits_before_dispatch=False,
    min_tokens=1,
    max_row_chunk=16,
    level_bytes=10_000_000,
    level_copies=3.0,
    warm_rows=(1, 16),
    warm_tokens=512,
)


def profile_here() -> DeviceProfile:
    """The profile of MLX's default device."""
    return {profile.backend: profile for profile in (CPU, CUDA, METAL)}[backend()]

"""How a device likes its batches, and in which numbers of rows."""

from __future__ import annotations

from typing import NamedTuple

from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.schedule.warm_up import KernelSizes


class Packing(NamedTuple):
    """How a device likes its batches; padding_block is nobody's block."""

    padding_block: int
    min_tokens: int = 1  # fewer tokens than these get company, which no attention is computed for
    in_buckets: bool = False  # batches of rows alone get one of few numbers of rows, and of widths of tables...
    # ...with chunks among them up to so many rows: larger ones come in shapes that are seldom seen again, and to trace
    # a forward takes twice as long as to build its graph.
    max_bucket_of_chunks: int = 64
    max_row_chunk: int = 1  # tokens of a chunk that are rows of their own rather than a prompt chunk
    costs: SharingCosts = SharingCosts(launches=4, copies=1)
    has_states: bool = False  # the model has recurrent layers
    window: int = 0  # tokens that layers with tables of their own see; 0 where there are none
    window_padding_block: int = 0  # nobody's in those
    warm_rows: tuple[int, ...] = (1,)  # numbers of rows that have kernels of their own to compile...
    warm_blocks: int = 0  # ...and how many blocks a row has that is read in parts

    @property
    def kernel_sizes(self) -> KernelSizes:
        """What has to be computed once before all kernels are compiled."""
        most = max(self.warm_rows)
        return KernelSizes(
            self.max_row_chunk,
            self.warm_rows,
            max(self.warm_blocks, self.costs.num_worth_sharing(most) or 0),
            self.costs.num_worth_two_levels(most),
        )


def bucket(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ... that is at least `count`."""
    power = 1 << max((count - 1).bit_length() - 1, 0)
    return next(size for size in (power, power + power // 2, 2 * power) if size >= count)

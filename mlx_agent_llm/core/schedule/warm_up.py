"""Work for nobody: a schedule for each kind of batch whose kernels MLX compiles when it first meets them.

On CUDA a kernel takes a second or more to compile, in every process; the first requests should not wait for it. What is
computed is read from any block and written to the padding's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.request import Request, SamplingParams


class KernelSizes(NamedTuple):
    """The sizes of batches at which a device has kernels of their own."""

    max_row_chunk: int  # a longer chunk attends as a prompt
    num_rows: tuple[int, ...]
    num_shared_blocks: int  # the fewest that a row reads in parts, and that most rows read together
    two_levels: tuple[int, int] | None  # the fewest that most rows share, and after these each half of them


def warm_up_schedules(
    sizes: KernelSizes, padding_block: int, block_size: int, max_chunk: int, max_model_len: int
) -> Iterator[Schedule]:
    """Chunks of prompts of both kinds; rows alone, long ones, so that many read together; rows that do in two levels.

    No chunk is longer than max_chunk, which none of a request will be. No position is after max_model_len: a model may
    have none there, and no request will.
    """
    nobody, most = padding_block, max(sizes.num_rows)
    most_common = (max_model_len - 1) // block_size

    def row(shared: Sequence[int]) -> Chunk:
        return _chunk([*shared, nobody], len(shared) * block_size, 1)

    def chunk(length: int) -> Chunk:
        return _chunk([nobody] * -(-length // block_size), 0, length)

    for length in (sizes.max_row_chunk + 1, sizes.max_row_chunk):
        if 1 < length <= min(max_chunk, max_model_len):
            yield Schedule([row([])], [chunk(length)])
    for count in sizes.num_rows:
        yield Schedule([row([nobody] * min(sizes.num_shared_blocks, most_common))] * count, [])
    if sizes.two_levels is not None and sum(sizes.two_levels) <= most_common:
        num_common, num_of_half = sizes.two_levels
        halves = [row([nobody] * num_common + [block] * num_of_half) for block in (nobody, 0)]
        yield Schedule([halves[index % 2] for index in range(most)], [])


def _chunk(block_table: list[int], start: int, length: int) -> Chunk:
    request = Request(-1, (0,) * (start + length), SamplingParams(), 0, lambda delta: None)
    request.kv.block_table = block_table
    return Chunk(request, start, length, is_sampled=False)

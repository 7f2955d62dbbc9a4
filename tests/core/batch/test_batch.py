from typing import Any

import numpy as np
import pytest

from mlx_agent_kernels import SharedLevel
from mlx_agent_llm.core.batch.batch import BatchArrays, RowSpan, TokenArrays, WindowArrays, pack


@pytest.mark.parametrize("num_levels", [None, 0, 1, 2])
@pytest.mark.parametrize("num_prompts", [0, 1, 3])
@pytest.mark.parametrize("has_window", [False, True])
def test_every_array_comes_back_in_its_own_place(num_levels: int | None, num_prompts: int, has_window: bool) -> None:
    names = iter(range(100))

    def array(*shape: int) -> Any:
        return np.full(shape, next(names), dtype=np.int32)

    tokens = TokenArrays(*[array(5) for _ in TokenArrays._fields])
    levels = tuple(SharedLevel(array(2, 3), array(2), array(2, 4), array(5)) for _ in range(num_levels or 0))
    rows = None if num_levels is None else RowSpan(levels, array(5, 7), array(5))
    tables = tuple(array(2 + index) for index in range(num_prompts))
    window = WindowArrays(array(5), rows, tables) if has_window else None
    arrays = BatchArrays(tokens, rows, tables, window)
    assert pack(arrays).unpack().map(values) == arrays.map(values)


def values(array: Any) -> Any:
    return np.array(array).tolist()

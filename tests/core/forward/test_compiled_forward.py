"""A forward that was traced once computes what one that is built anew does, and writes where it does."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.batch.packing import Packing
from mlx_agent_llm.core.forward.compiled_forward import CompiledForward
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core, run


def compiled(core: EngineCore) -> CompiledForward:
    """Let the core run its rows as a GPU's does, on whatever device."""
    runner = core._runner
    runner._compiled = CompiledForward(runner._model)
    packing = Packing(runner.packing.padding_block, in_buckets=True, max_row_chunk=8)
    core._batch_maker = BatchMaker(core._runner._block_size, packing)
    return runner._compiled


@pytest.mark.parametrize("num_common", [0, 100])
def test_a_compiled_forward_gives_the_same_tokens_in_few_shapes(num_common: int, on_the_cpu: None) -> None:
    model = tiny_model()
    prompts = [[*range(num_common), *range(200 - index, 205)] for index in range(7)]
    expected = run(make_core(model), *prompts)
    core = make_core(model)
    forward, shapes = compiled(core), set()
    trace = forward._trace

    def recorded_trace(*arguments: Any) -> Any:
        shapes.add(arguments[2])
        return trace(*arguments)

    forward._trace = recorded_trace
    assert run(core, *prompts) == expected
    assert run(core, *prompts[:5]) == expected[:5]
    assert 1 <= len(shapes) <= 8
    assert core.stats().num_steps > 2 * len(shapes)


def test_a_compiled_forward_writes_the_pools_in_place(on_the_cpu: None) -> None:
    core = make_core(tiny_model())
    compiled(core)
    layers: list[PagedLayer] = core._runner._layers.paged
    addresses = set()

    def note() -> None:
        for layer in layers:
            mx.eval(layer.keys, layer.values)
            addresses.add(np.array(layer.keys, copy=False).ctypes.data)

    note()
    run(core, list(range(30)), list(range(20)), each_step=note)
    assert len(addresses) == len(layers)

"""States over packed tokens: what mlx-lm's own modules make of them, in what order and in which arrays."""

from typing import Any

import mlx.core as mx
import pytest

from mlx_agent_llm.core.batch.batch import Batch, StateBatch, StateChunk, StateRows, TokenArrays
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.forward.compiled_forward import CompiledForward
from mlx_agent_llm.core.forward.layers.state import StateLayer
from mlx_agent_llm.core.kv.layer_shape import ArrayShape, StateShape
from tests.support.cores import make_core, run
from tests.support.model_types.tiny import tiny


def summed(x: mx.array, cache: Any) -> mx.array:
    """(B, S, 1) inputs -> (B, S, 1) running sums, whose last one is the state."""
    before = mx.zeros((len(x), 1, 1)) if cache[0] is None else cache[0]
    sums = before + mx.cumsum(x, axis=1)
    cache[0] = sums[:, -1:]
    return sums


def forward(layer: StateLayer, numbers: list[float], states: StateBatch, num_padding: int = 0) -> list[float]:
    """What the layer makes of packed numbers."""
    positions = mx.arange(len(numbers))
    layer.batch = Batch(TokenArrays(*[positions] * 5), None, num_padding=num_padding)
    layer.load(states)
    sums = layer.run(summed, [mx.array(numbers)[:, None, None]], {"cache": layer})
    mx.eval(sums, layer.store(states))
    found: list[float] = sums[:, 0, 0].tolist()
    return found


@pytest.fixture
def layer() -> StateLayer:
    return StateLayer(StateShape((ArrayShape((1, 1, 1), mx.float32),)))


def chunks(*spans: tuple[int, int, int | None, int | None]) -> StateBatch:
    return StateBatch(None, tuple(StateChunk(*span) for span in spans), frozenset())


def rows(*slots: tuple[int, int], num_rows: int | None = None) -> StateBatch:
    sources, targets = zip(*slots, strict=True)
    return StateBatch(StateRows(num_rows or len(slots), sources, targets), (), frozenset())


def test_chunks_begin_from_nothing_from_a_slot_or_from_each_other(layer: StateLayer) -> None:
    assert forward(layer, [1, 2, 3, 10, 20], chunks((0, 2, None, 0), (2, 3, 0, 1), (3, 5, None, 2))) == [
        1,
        3,
        6,
        10,
        30,
    ]
    assert forward(layer, [1, 1, 1], chunks((0, 1, 0, 3), (1, 2, 1, 1), (2, 3, 2, 2))) == [4, 7, 31]
    assert forward(layer, [0, 0], chunks((0, 1, 3, 3), (1, 2, 0, 4))) == [4, 3], "what others went on from is as it was"


def test_a_chunk_that_is_computed_first_may_stand_behind(layer: StateLayer) -> None:
    assert forward(layer, [1, 2, 3], chunks((1, 3, None, 0), (0, 1, 0, 1))) == [6, 2, 5]


def test_rows_are_one_call_whatever_slots_they_come_from(layer: StateLayer) -> None:
    forward(layer, [1, 10, 100], chunks((0, 1, None, 0), (1, 2, None, 1), (2, 3, None, 2)))
    assert forward(layer, [1, 1, 1, 7], rows((2, 2), (0, 3), (1, 1)), num_padding=1) == [101, 2, 11, 0]
    assert forward(layer, [1, 1, 1, 1], rows((0, 0), (1, 1), (2, 2), num_rows=4))[:3] == [2, 12, 102]
    assert forward(layer, [1, 1], rows((3, 3), (1, 1))) == [3, 13]


def test_rows_that_stay_together_are_handed_back_without_a_copy(layer: StateLayer) -> None:
    forward(layer, [1, 10], chunks((0, 1, None, 0), (1, 2, None, 1)))
    forward(layer, [1, 1], rows((0, 0), (1, 1)))
    before = layer._places[0].arrays[0]
    layer.load(rows((0, 0), (1, 1)))
    assert layer._rows[0] is before


def test_a_snapshot_of_a_row_does_not_keep_the_states_of_all_rows(layer: StateLayer) -> None:
    forward(layer, [1, 10], chunks((0, 1, None, 0), (1, 2, None, 1)))
    forward(layer, [1, 1], rows((0, 0), (1, 1)))
    forward(layer, [1, 1], rows((0, 2), (1, 1)))
    assert layer._places[0].arrays[0].size == 1
    assert forward(layer, [0], rows((0, 0))) == [2]


def test_empty_slots_hold_nothing(layer: StateLayer) -> None:
    forward(layer, [1, 10], chunks((0, 1, None, 0), (1, 2, None, 1)))
    forward(layer, [5], chunks((0, 1, 0, 2))._replace(empty_slots=frozenset([0, 1])))
    assert layer._places.keys() == {2}


@pytest.mark.long
@pytest.mark.parametrize("model_type", ["qwen3_next", "mamba2", "recurrent_gemma"])
def test_a_compiled_forward_of_rows_gives_the_same_tokens(model_type: str, on_the_cpu: None) -> None:
    model = tiny(model_type)
    prompts = [list(range(index, 40 + 3 * index)) for index in range(5)]
    expected = run(make_core(model), *prompts)
    core = make_core(model)
    runner = core._runner
    runner._compiled = CompiledForward(runner._model)
    runner.packing = runner.packing._replace(in_buckets=True, max_row_chunk=8, min_tokens=1)
    core._batch_maker = BatchMaker(runner._block_size, runner.packing)
    shapes, trace = set(), runner._compiled._trace

    def recorded_trace(*arguments: Any) -> Any:
        shapes.add(arguments[2])
        return trace(*arguments)

    runner._compiled._trace = recorded_trace
    assert run(core, *prompts) == expected
    assert len(shapes) > 0

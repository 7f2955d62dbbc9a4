"""Small GGUF files written by hand, and what their quantized blocks mean, in numpy."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.models.tokenizer import byte_level_alphabet

Array = npt.NDArray[Any]
TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "IQ2_XXS": 16, "BF16": 30, "TQ1_0": 34}
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, HEAD_DIM = 64, 96, 4, 2, 2, 16
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


@dataclass
class Typed:
    """A metadata value whose GGUF type is not the one that `encode_value` would choose."""

    type_id: int
    raw: bytes


@dataclass
class Spec:
    metadata: dict[str, Any]
    tensors: dict[str, tuple[str, Array]] = field(default_factory=dict)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def encode_value(value: Any) -> bytes:
    match value:
        case Typed():
            return struct.pack("<I", value.type_id) + value.raw
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case list() if value and isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case list():
            letter, type_id = ("f", 6) if value and isinstance(value[0], float) else ("i", 5)
            return struct.pack(f"<IIQ{len(value)}{letter}", 9, type_id, len(value), *value)
    raise AssertionError(value)


def encode_tensor(kind: str, values: Array) -> bytes:
    """The bytes of `values`; those of a type that cannot be loaded are a few zeros."""
    if kind in ("F32", "F16"):
        return values.astype(np.float32 if kind == "F32" else np.float16).tobytes()
    if kind == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if kind not in ("Q4_0", "Q4_1", "Q8_0"):
        return bytes(32)
    return b"".join(_encode_block(kind, block) for block in values.reshape(-1, 32))


def _encode_block(kind: str, block: Array) -> bytes:
    low, span = float(block.min()), float(np.abs(block).max())
    if kind == "Q8_0":
        scale = np.float16(span / 127)
        return scale.tobytes() + np.clip(np.round(block / float(scale)), -127, 127).astype(np.int8).tobytes()
    scale = np.float16(span / 7 if kind == "Q4_0" else (float(block.max()) - low) / 15)
    zero = -8 * float(scale) if kind == "Q4_0" else float(np.float16(low))
    items = np.clip(np.round((block - zero) / float(scale)), 0, 15).astype(np.uint8)
    head = scale.tobytes() + (b"" if kind == "Q4_0" else np.float16(low).tobytes())
    return head + (items[:16] | items[16:] << 4).astype(np.uint8).tobytes()


def decode_tensor(kind: str, values: Array) -> Array:
    """What the encoded tensor holds, in float32, item by item from the format's definition."""
    raw = encode_tensor(kind, values)
    if kind == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(values.shape)
    if kind in ("F32", "F16"):
        dtype = np.float32 if kind == "F32" else np.float16
        return np.frombuffer(raw, dtype).astype(np.float32).reshape(values.shape)
    size = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind]
    blocks = [_decode_block(kind, raw[start : start + size]) for start in range(0, len(raw), size)]
    return np.array(blocks, np.float32).reshape(values.shape)


def _decode_block(kind: str, raw: bytes) -> list[float]:
    (scale,) = struct.unpack("<e", raw[:2])
    if kind == "Q8_0":
        return [scale * item for item in struct.unpack("<32b", raw[2:])]
    stored = raw[-16:]
    items = [byte & 15 for byte in stored] + [byte >> 4 for byte in stored]
    if kind == "Q4_0":
        return [scale * (item - 8) for item in items]
    (low,) = struct.unpack("<e", raw[2:4])
    return [scale * item + low for item in items]


def encode(spec: Spec, *, version: int = 3, alignment: int = 32) -> bytes:
    head, infos, data = b"", b"", b""
    for key, value in spec.metadata.items():
        head += text(key) + encode_value(value)
    for name, (kind, values) in spec.tensors.items():
        data += bytes(-len(data) % alignment)
        shape = values.shape[::-1]
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, TYPE_IDS[kind], len(data))
        data += encode_tensor(kind, values)
    start = b"GGUF" + struct.pack("<IQQ", version, len(spec.tensors), len(spec.metadata)) + head + infos
    return start + bytes(-len(start) % alignment) + data


def write(path: Path, spec: Spec, **options: int) -> Path:
    path.write_bytes(encode(spec, **options))
    return path


def byte_vocabulary() -> list[str]:
    """Three control tokens, the 256 bytes, and one merge."""
    return ["<s>", "</s>", "<|eot|>", *byte_level_alphabet(), "he"]


def tokenizer_metadata() -> dict[str, Any]:
    tokens = byte_vocabulary()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(tokens) - 3)],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": TEMPLATE,
    }


def llama_metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD_DIM,
        "llama.rope.freq_base": 10000.0,
    }


def llama_spec(kind: str = "F32", *, tied: bool = True, changes: Mapping[str, Any] | None = None) -> Spec:
    """A llama of two layers with random weights; a change to None removes the metadata key."""
    random = np.random.default_rng(7)
    vocab = len(byte_vocabulary())
    shapes = {"token_embd": (vocab, HIDDEN), "output_norm": (HIDDEN,)}
    shapes |= {} if tied else {"output": (vocab, HIDDEN)}
    for index in range(LAYERS):
        layer = {
            "attn_norm": (HIDDEN,),
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }
        shapes |= {f"blk.{index}.{name}": shape for name, shape in layer.items()}
    tensors = {}
    for name, shape in shapes.items():
        values = random.normal(0, 0.2, shape).astype(np.float32)
        is_vector = len(shape) == 1
        tensors[f"{name}.weight"] = ("F32", 1 + values) if is_vector else (kind, values)
    metadata = llama_metadata() | tokenizer_metadata() | dict(changes or {})
    return Spec({key: value for key, value in metadata.items() if value is not None}, tensors)

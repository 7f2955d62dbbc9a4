"""From a name to an embedding model that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders import architectures, decoders
from mlx_agent_llm.models.embedders.architectures import read_architecture
from mlx_agent_llm.models.embedders.config_values import ConfigValues
from mlx_agent_llm.models.embedders.decoders import Decoder
from mlx_agent_llm.models.embedders.layout import Layout, read_layout
from mlx_agent_llm.models.embedders.pooling import pool, reads_first_only
from mlx_agent_llm.models.embedders.source import find_embedder
from mlx_agent_llm.models.embedders.text_batch import TextBatch
from mlx_agent_llm.models.embedders.text_tokenizer import TextTokenizer
from mlx_agent_llm.models.embedders.unread import Preflight, unread
from mlx_agent_llm.models.embedders.weights import check_finite, hold_by_columns, load_weights
from mlx_agent_llm.models.json_file import read_json_object
from mlx_agent_llm.models.loading import logits_width
from mlx_agent_llm.models.placement import place_weights, resolve_device
from mlx_agent_llm.process.default_device import default_device

_DENSE_ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = {
    "Identity": lambda vectors: vectors,
    "Tanh": mx.tanh,
    "ReLU": nn.relu,
    "GELU": nn.gelu,
    "Sigmoid": mx.sigmoid,
}


class EmbeddingModel(nn.Module):
    """An encoder, a pooling and what follows: a TextBatch (B, L) -> vectors (B, D) in float32."""

    def __init__(self, encoder: nn.Module, pooling: tuple[str, ...], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = _Heads(heads)
        self._pooling = pooling

    def __call__(self, texts: TextBatch) -> mx.array:
        """See the class."""
        hidden = self.encoder(texts, reads_first_only(self._pooling))
        vectors: mx.array = self.heads(pool(self._pooling, hidden, texts.lengths))
        return vectors


@dataclass(frozen=True)
class LoadedEmbedder:
    """An embedding model with all parameters evaluated; `dimensions` is the width of its vectors.

    prompts: what is written before a text, by name; default_prompt_name is the one for texts that name none.
    """

    model: EmbeddingModel | Decoder
    tokenizer: TextTokenizer
    name: str
    dimensions: int
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    device: mx.Device


def load_embedder(
    name: str, *, device: Device = "auto", dtype: DType = "auto", preflight: Preflight = lambda unread: None
) -> LoadedEmbedder:
    """Load "demo-embedder", a directory in sentence-transformers' layout or a hub id.

    On a CPU all weights become float32 unless dtype says otherwise. A name that leads nowhere or data that cannot be
    read is a ModelLoadError, a kind that is not supported an UnsupportedModelError.
    """
    target = resolve_device(device)
    path = find_embedder(name)
    _check_model_type(read_json_object(path / "config.json"))  # first: a chat model has no such layout
    layout = read_layout(path)
    config = read_json_object(layout.encoder / "config.json")
    with default_device.set_to(target):
        make = _make_decoder if config.get("model_type") in decoders.MODEL_TYPES else _make_encoder
        model, tokenizer, dimensions = make(layout, config, target, dtype, preflight)
    return LoadedEmbedder(model, tokenizer, name, dimensions, layout.prompts, layout.default_prompt_name, target)


def _make_encoder(
    layout: Layout, config: Mapping[str, Any], device: mx.Device, dtype: DType, preflight: Preflight
) -> tuple[EmbeddingModel, TextTokenizer, int]:
    found = read_architecture(config)
    tokenizer = TextTokenizer(layout.encoder, found.max_tokens, found.vocab_size, layout.text_options)
    encoder = found.make(device)
    load_weights(encoder, layout.encoder, found.rename)
    model = EmbeddingModel(encoder, layout.pooling, _read_heads(layout))
    preflight(unread(model, found.vocab_size, tokenizer.max_tokens, device, dtype))
    place_weights(model, device, dtype)
    if device.type == mx.cpu:
        hold_by_columns(encoder)
    check_finite(model, layout.encoder)
    one = mx.array([1])
    return model, tokenizer, int(model(TextBatch(one[None], one, one)).shape[-1])


def _make_decoder(
    layout: Layout, config: Mapping[str, Any], device: mx.Device, dtype: DType, preflight: Preflight
) -> tuple[Decoder, TextTokenizer, int]:
    if layout.pooling != ("lasttoken",):
        raise UnsupportedModelError(
            f"{layout.encoder}: pooling {', '.join(layout.pooling)} of a causal model is not supported: lasttoken is"
        )
    context = decoders.check_causal(layout.encoder, config)
    vocab_size = ConfigValues(config).size("vocab_size")
    tokenizer = TextTokenizer(layout.encoder, context, vocab_size, layout.text_options)
    model, heads = decoders.read_headless(layout.encoder, config), _Heads(_read_heads(layout))
    preflight(unread(model, vocab_size, tokenizer.max_tokens, device, dtype))
    for module in (model, heads):
        place_weights(module, device, dtype)
        check_finite(module, layout.encoder)
    return Decoder(model, vocab_size, heads), tokenizer, int(heads(mx.zeros((1, logits_width(model)))).shape[-1])


def _check_model_type(config: Mapping[str, Any]) -> None:
    if config.get("model_type") not in (types := (*architectures.MODEL_TYPES, *decoders.MODEL_TYPES)):
        raise UnsupportedModelError(
            f"model_type={config.get('model_type')!r} is no embedding model that is supported: {', '.join(types)}"
        )


def _read_heads(layout: Layout) -> list[nn.Module]:
    return [_Normalize() if folder is None else _read_dense(folder) for folder in layout.heads]


class _Heads(nn.Module):
    """Hidden states (S, W) -> vectors (S, D) in float32."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = list(heads)

    def __call__(self, vectors: mx.array) -> mx.array:
        vectors = vectors.astype(mx.float32)
        for head in self.heads:
            vectors = head(vectors)
        return vectors.astype(mx.float32)


class _Normalize(nn.Module):
    def __call__(self, vectors: mx.array) -> mx.array:
        return normalize(vectors)


class _Dense(nn.Module):
    def __init__(self, in_features: int, out_features: int, *, bias: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self._activation = _DENSE_ACTIVATIONS[activation]

    def __call__(self, vectors: mx.array) -> mx.array:
        return self._activation(self.linear(vectors))


def normalize(vectors: mx.array) -> mx.array:
    """Vectors (B, D) scaled to length 1; one of zeros stays as it is."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _read_dense(folder: Path) -> _Dense:
    config = read_json_object(folder / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _DENSE_ACTIVATIONS:
        raise UnsupportedModelError(
            f"{folder}: activation_function={activation!r} must be one of {', '.join(_DENSE_ACTIVATIONS)}"
        )
    is_plain = config.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    if config.get("use_residual", False) or not is_plain:
        raise UnsupportedModelError(f"{folder}: only a Dense from sentence_embedding without use_residual is supported")
    try:
        dense = _Dense(
            config["in_features"], config["out_features"], bias=config.get("bias", True), activation=activation
        )
    except KeyError as error:
        raise ModelLoadError(f"{folder}: config.json names no {error.args[0]}") from error
    load_weights(dense, folder, lambda name: name)
    return dense

"""From a name to a cross-encoder that is ready to run: one score for a query and a document that it reads together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders import functions
from mlx_agent_llm.models.embedders.architectures import Architecture, read_architecture
from mlx_agent_llm.models.embedders.functions import ACTIVATIONS, Functions
from mlx_agent_llm.models.embedders.layout import read_text_options
from mlx_agent_llm.models.embedders.pooling import pool
from mlx_agent_llm.models.embedders.source import find_embedder
from mlx_agent_llm.models.embedders.text_batch import TextBatch
from mlx_agent_llm.models.embedders.text_tokenizer import TextTokenizer
from mlx_agent_llm.models.embedders.weights import check_finite, load_weights
from mlx_agent_llm.models.json_file import read_json, read_json_object
from mlx_agent_llm.models.placement import place_weights, resolve_device
from mlx_agent_llm.process.default_device import default_device

_SCORES: Mapping[str, Callable[[mx.array], mx.array]] = {"Identity": lambda logits: logits, "Sigmoid": mx.sigmoid}
_HEAD_NAMES = (
    (re.compile(r"^(?:bert\.pooler|classifier|head)\.dense\."), "head.dense."),
    (re.compile(r"^head\.norm\."), "head.norm."),
    (re.compile(r"^classifier(?:\.out_proj)?\."), "head.out."),
)


class CrossEncoder(nn.Module):
    """An encoder and a head on a pooled hidden state: a TextBatch (B, L) of pairs -> scores (B, 1) in float32."""

    def __init__(self, encoder: nn.Module, head: nn.Module, pooling: str, score: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self._pooling = pooling
        self._score = _SCORES[score]

    def __call__(self, texts: TextBatch) -> mx.array:
        """See the class."""
        pooled = pool((self._pooling,), self.encoder(texts), texts.lengths)
        return self._score(self.head(pooled).astype(mx.float32))


@dataclass(frozen=True)
class LoadedReranker:
    """A cross-encoder with all parameters evaluated."""

    model: CrossEncoder
    tokenizer: TextTokenizer
    name: str
    device: mx.Device


def load_reranker(name: str, *, device: Device = "auto", dtype: DType = "auto") -> LoadedReranker:
    """Load a directory with a sequence-classification model of transformers, of one label, or a hub id.

    On a CPU all weights become float32 unless dtype says otherwise. A name that leads nowhere or data that cannot be
    read is a ModelLoadError, a kind that is not supported an UnsupportedModelError.
    """
    target = resolve_device(device)
    path = find_embedder(name)
    config = read_json_object(path / "config.json")
    found = read_architecture(config)
    _check_kind(path, config)
    tokenizer = TextTokenizer(path, found.max_tokens, found.vocab_size, read_text_options(path))
    with default_device.set_to(target):
        ours = functions.of_device(target)
        head = _Head(found, config, ours)
        pooling = str(config.get("classifier_pooling", "cls"))
        model = CrossEncoder(found.make(ours), head, pooling, _score_name(config))
        load_weights(model, path, lambda weight: _rename(weight, found))
        place_weights(model, target, dtype)
        check_finite(model, path)
    return LoadedReranker(model, tokenizer, name, target)


class _Head(nn.Module):
    """ModernBERT has a norm in it, and a function of its own choice."""

    def __init__(self, found: Architecture, config: Mapping[str, Any], ours: Functions) -> None:
        super().__init__()
        is_modern = found.model_type == "modernbert"
        size = found.hidden_size
        self.dense = nn.Linear(size, size, bias=config.get("classifier_bias", False) if is_modern else True)
        activation: Any = mx.tanh
        if is_modern:
            self.norm = nn.LayerNorm(size, config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
            activation = ACTIVATIONS[config.get("classifier_activation", "gelu")] or ours.gelu
        self.out = nn.Linear(size, 1)
        self._activation = activation

    def __call__(self, pooled: mx.array) -> mx.array:
        hidden = self._activation(self.dense(pooled.astype(self.dense.weight.dtype)))
        logits: mx.array = self.out(self.norm(hidden) if "norm" in self else hidden)
        return logits


def _rename(name: str, found: Architecture) -> str | tuple[str, ...] | None:
    for pattern, replacement in _HEAD_NAMES:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    names = found.rename(name)
    if names is None:
        return None
    return f"encoder.{names}" if isinstance(names, str) else tuple(f"encoder.{each}" for each in names)


def _check_kind(path: Path, config: Mapping[str, Any]) -> None:
    """Only what sentence-transformers would compute from the same files is computed here."""
    kinds = [str(kind) for kind in config.get("architectures") or []]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds) or config["model_type"] == "nomic_bert":
        raise UnsupportedModelError(f"{path}: {', '.join(kinds) or 'a model'} is no cross-encoder that is supported")
    num_labels = config.get("num_labels") or len(config.get("id2label") or (0, 1))
    if num_labels != 1:
        raise UnsupportedModelError(f"{path}: num_labels={num_labels} must be 1: one score for a pair")
    if (path / "modules.json").is_file():
        modules = [str(module.get("type", "")).rpartition(".")[2] for module in read_json(path / "modules.json")]
        if modules != ["Transformer"]:
            raise UnsupportedModelError(f"{path}/modules.json: {' + '.join(modules)} must be Transformer alone")
    if (activation := config.get("classifier_activation", "gelu")) not in ACTIVATIONS:
        raise UnsupportedModelError(f"classifier_activation={activation!r} is not supported: {', '.join(ACTIVATIONS)}")


def _score_name(config: Mapping[str, Any]) -> str:
    """The function of a logit that the model's makers chose; without one a score is between 0 and 1."""
    chosen = (config.get("sentence_transformers") or {}).get("activation_fn")
    chosen = chosen or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    name = str(chosen).rpartition(".")[2]
    if name not in _SCORES:
        raise ModelLoadError(f"config.json: activation_fn={chosen!r} must be one of {', '.join(_SCORES)}")
    return name

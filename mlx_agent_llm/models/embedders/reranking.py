"""From a name to a reranking model that is ready to run: a score for a query and a document that it reads together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders.architectures import Architecture, read_architecture
from mlx_agent_llm.models.embedders.decoders import Decoder, check_causal
from mlx_agent_llm.models.embedders.judge import INSTRUCTION, MAX_TOKENS, Judge
from mlx_agent_llm.models.embedders.layout import read_text_options
from mlx_agent_llm.models.embedders.mlx_functions import ACTIVATIONS
from mlx_agent_llm.models.embedders.pooling import pool, reads_first_only
from mlx_agent_llm.models.embedders.source import find_embedder
from mlx_agent_llm.models.embedders.text_batch import TextBatch
from mlx_agent_llm.models.embedders.text_tokenizer import TextTokenizer, TokenizedTexts
from mlx_agent_llm.models.embedders.unread import Preflight, UnreadTextModel, unread
from mlx_agent_llm.models.embedders.weights import check_finite, hold_by_columns, load_weights
from mlx_agent_llm.models.json_file import read_json, read_json_object
from mlx_agent_llm.models.loading import UnreadModel, load_model, logits_width
from mlx_agent_llm.models.placement import place_weights, resolve_device
from mlx_agent_llm.process.default_device import default_device

_SCORES: Mapping[str, Callable[[mx.array], mx.array]] = {"Identity": lambda logits: logits, "Sigmoid": mx.sigmoid}
_WITHOUT_HEADS = ("gemma3_text", "nomic_bert")
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
        hidden = self.encoder(texts, reads_first_only((self._pooling,)))
        pooled = pool((self._pooling,), hidden, texts.lengths)
        return self._score(self.head(pooled).astype(mx.float32))


class PairTokenizer(Protocol):
    """Queries and documents as token ids."""

    @property
    def max_tokens(self) -> int:
        """The length that longer pairs are cut to."""

    def tokenize_pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenizedTexts:
        """A text for each pair."""


@dataclass(frozen=True)
class LoadedReranker:
    """A reranking model with all parameters evaluated."""

    model: CrossEncoder | Decoder
    tokenizer: PairTokenizer
    name: str
    device: mx.Device


def load_reranker(
    name: str,
    *,
    instruction: str | None = None,
    device: Device = "auto",
    dtype: DType = "auto",
    preflight: Preflight = lambda unread: None,
) -> LoadedReranker:
    """Load a directory with a sequence-classification model of one label or with Qwen3-Reranker, or a hub id.

    instruction: what Qwen3-Reranker judges by, None for its makers' own. On a CPU all weights become float32 unless
    dtype says otherwise. A name that leads nowhere or data that cannot be read is a ModelLoadError, a kind that is not
    supported an UnsupportedModelError.
    """
    path = find_embedder(name)
    config = read_json_object(path / "config.json")
    if config.get("model_type") == "qwen3":
        return _load_judge(name, path, instruction, device, dtype, preflight)
    if instruction is not None:
        raise ValueError(f"instruction={instruction!r:.60} is for Qwen3-Reranker: {name} takes none")
    return _load_cross_encoder(name, path, config, device, dtype, preflight)


def _load_judge(
    name: str, path: Path, instruction: str | None, device: Device, dtype: DType, preflight: Preflight
) -> LoadedReranker:
    """Nothing in the files tells Qwen3-Reranker from a chat model, so that its name or an instruction has to."""
    if instruction is None and "rerank" not in name.lower():
        raise UnsupportedModelError(f"{path}: a chat model, or a reranker that has another name: give an instruction")
    max_tokens = min(check_causal(path, read_json_object(path / "config.json")), MAX_TOKENS)

    def check(found: UnreadModel) -> None:
        vocab_size = logits_width(found.model)
        preflight(UnreadTextModel(found.model, vocab_size, max_tokens, found.num_bytes, found.dtype))

    loaded = load_model(str(path), device=device, dtype=dtype, preflight=check)
    check_finite(loaded.model, path)
    judge = Judge(loaded.tokenizer, INSTRUCTION if instruction is None else instruction, max_tokens)
    return LoadedReranker(Decoder(loaded.model, loaded.vocab_size, judge.read), judge, name, resolve_device(device))


def _load_cross_encoder(
    name: str, path: Path, config: Mapping[str, Any], device: Device, dtype: DType, preflight: Preflight
) -> LoadedReranker:
    target = resolve_device(device)
    found = read_architecture(config)
    _check_kind(path, config)
    tokenizer = TextTokenizer(path, found.max_tokens, found.vocab_size, read_text_options(path))
    with default_device.set_to(target):
        pooling = str(config.get("classifier_pooling", "cls"))
        model = CrossEncoder(found.make(target), _Head(found, config), pooling, _score_name(config))
        load_weights(model, path, lambda weight: _rename(weight, found))
        preflight(unread(model, found.vocab_size, tokenizer.max_tokens, target, dtype))
        place_weights(model, target, dtype)
        if target.type == mx.cpu:
            hold_by_columns(model.encoder)
        check_finite(model, path)
    return LoadedReranker(model, tokenizer, name, target)


class _Head(nn.Module):
    """ModernBERT has a norm in it, and a function of its own choice."""

    def __init__(self, found: Architecture, config: Mapping[str, Any]) -> None:
        super().__init__()
        is_modern = found.model_type == "modernbert"
        size = found.hidden_size
        self.dense = nn.Linear(size, size, bias=config.get("classifier_bias", False) if is_modern else True)
        activation: Any = mx.tanh
        if is_modern:
            self.norm = nn.LayerNorm(size, config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
            activation = ACTIVATIONS[config.get("classifier_activation", "gelu")]
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
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds) or config["model_type"] in _WITHOUT_HEADS:
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

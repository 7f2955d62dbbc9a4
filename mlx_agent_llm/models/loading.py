"""From a name to a model that is ready to run; the one place that knows where models come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.directory import read_directory
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.llama import build_llama, check_llama
from mlx_agent_llm.models.gguf.tokenizer import build_tokenizer
from mlx_agent_llm.models.placement import place_weights, resolve_device
from mlx_agent_llm.models.source import find_model
from mlx_agent_llm.models.tokenizer import Tokenizer
from mlx_agent_llm.process.default_device import default_device


@dataclass(frozen=True)
class LoadedModel:
    """A model with all parameters evaluated; vocab_size is the width of its logits, max_model_len its own context."""

    model: nn.Module
    tokenizer: Tokenizer
    name: str
    max_model_len: int
    vocab_size: int


def load_model(name: str, *, device: Device = "auto", dtype: DType = "auto") -> LoadedModel:
    """Load "demo", a local mlx-lm directory, a .gguf file or a hub id.

    On a CPU all weights become float32 unless dtype says otherwise; on a GPU quantized layers stay quantized. A name
    that leads nowhere or data that cannot be read is a ModelLoadError, a kind that is not supported an
    UnsupportedModelError.
    """
    target = resolve_device(device)
    path = find_model(name)
    with default_device.set_to(target):
        parts = _read_gguf(path) if path.is_file() else _read_directory(path)
        place_weights(parts.model, target, dtype, parts.own_dtype)
        vocab_size = logits_width(parts.model)
    return LoadedModel(parts.model, parts.tokenizer, name, parts.max_model_len, vocab_size)


class _Parts(NamedTuple):
    model: nn.Module
    tokenizer: Tokenizer
    max_model_len: int
    own_dtype: mx.Dtype | None


def _read_gguf(path: Path) -> _Parts:
    gguf = read_gguf(path)
    check_llama(gguf)
    tokenizer = build_tokenizer(gguf)
    model, args, own_dtype = build_llama(gguf)
    if tokenizer.vocab_size > args.vocab_size:
        raise ModelLoadError(f"{path}: {tokenizer.vocab_size} tokens, but embeddings for {args.vocab_size} only")
    return _Parts(model, tokenizer, args.max_position_embeddings, own_dtype)


def _read_directory(path: Path) -> _Parts:
    return _Parts(*read_directory(path), own_dtype=None)


def logits_width(model: nn.Module) -> int:
    """Build one token's forward without evaluating it: the shape is known from the graph."""
    logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=make_prompt_cache(model))
    return int(logits.shape[-1])

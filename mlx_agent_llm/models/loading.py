"""From a name to a model that is ready to run; the one place that knows where models come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
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
    """A model with all parameters evaluated.

    max_model_len: its own context, None where its configuration names none; vocab_size: the width of its logits.
    """

    model: nn.Module
    tokenizer: Tokenizer
    name: str
    max_model_len: int | None
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
    _check_vocabulary(path, parts.tokenizer, vocab_size)
    return LoadedModel(parts.model, parts.tokenizer, name, parts.max_model_len, vocab_size)


class _Parts(NamedTuple):
    model: nn.Module
    tokenizer: Tokenizer
    max_model_len: int | None
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


def _check_vocabulary(path: Path, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Tokens with a text have to have logits; markup that a model of text alone lacks is often left in a tokenizer."""
    with_text = (token_id for token_id, text in enumerate(tokenizer.token_bytes) if text)
    last = max(with_text, default=0)
    if last >= vocab_size:
        raise ModelLoadError(
            f"{path}: the tokenizer has a token {last} ({tokenizer.token_bytes[last]!r}), and the model has logits for "
            f"{vocab_size} tokens"
        )


def logits_width(model: nn.Module) -> int:
    """The width of a model's logits, read off the graph of one token's forward, which is not evaluated.

    Raises UnsupportedModelError where mlx-lm itself cannot build it.
    """
    try:
        logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=make_prompt_cache(model))
        return int(logits.shape[-1])
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        raise UnsupportedModelError(
            f"{type(model).__module__}: mlx-lm cannot run it here: {type(error).__name__}: {error}"
        ) from error

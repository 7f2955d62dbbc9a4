"""From a name to a model that is ready to run; the one place that knows where models come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.adapter import add_adapter, fuse_adapter
from mlx_agent_llm.models.directory import read_directory, read_sampling_defaults
from mlx_agent_llm.models.gguf.model import build_model
from mlx_agent_llm.models.gguf.split import read_whole
from mlx_agent_llm.models.gguf.tokenizer import build_tokenizer
from mlx_agent_llm.models.placement import place_weights, resolve_device, weight_bytes, weight_dtype
from mlx_agent_llm.models.progress import loading_bar
from mlx_agent_llm.models.recommended import from_gguf_metadata
from mlx_agent_llm.models.source import find_model
from mlx_agent_llm.models.tokenizer import Tokenizer
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.request import SamplingDefaults


@dataclass(frozen=True)
class LoadedModel:
    """A model with all parameters evaluated.

    max_model_len: its own context, None where its configuration names none; vocab_size: the width of its logits.
    sampling_defaults: what its makers recommend. adapter: the fingerprint of the adapter in it, None without one.
    """

    model: nn.Module
    tokenizer: Tokenizer
    name: str
    max_model_len: int | None
    vocab_size: int
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    adapter: str | None = None


class UnreadModel(NamedTuple):
    """A model whose weights are not read yet.

    num_bytes: what they will take; dtype: what the floating ones become, None where each stays as it was stored.
    """

    model: nn.Module
    num_bytes: int
    dtype: mx.Dtype | None
    max_model_len: int | None
    tokenizer: Tokenizer


Preflight = Callable[[UnreadModel], None]


def load_model(
    name: str,
    *,
    device: Device = "auto",
    dtype: DType = "auto",
    adapter_path: str | None = None,
    preflight: Preflight = lambda unread: None,
) -> LoadedModel:
    """Load "demo", a local mlx-lm directory, a .gguf file or a hub id.

    On a CPU all weights become float32 unless dtype says otherwise; on a GPU quantized layers stay quantized. A name
    that leads nowhere or data that cannot be read is a ModelLoadError, a kind that is not supported an
    UnsupportedModelError. adapter_path: of an adapter in mlx-lm's format. preflight: raises where the model must not be
    read; it is called once, when all but the weights is known.
    """
    target = resolve_device(device)
    path = find_model(name)
    with default_device.set_to(target):
        parts = _open(path, target, dtype)
        preflight(_unread(parts, target, dtype))
        parts.read_weights()
        adapter = None if adapter_path is None else add_adapter(parts.model, Path(adapter_path).expanduser())
        place_weights(parts.model, target, dtype, parts.own_dtype, path.name)
        fuse_adapter(parts.model)
        vocab_size = logits_width(parts.model)
    _check_vocabulary(path, parts.tokenizer, vocab_size)
    return LoadedModel(
        parts.model, parts.tokenizer, name, parts.max_model_len, vocab_size, parts.sampling_defaults, adapter
    )


def inspect_model(name: str, *, device: Device = "auto", dtype: DType = "auto") -> UnreadModel:
    """What load_model would read, without its weights; the same errors."""
    target = resolve_device(device)
    with default_device.set_to(target):
        return _unread(_open(find_model(name), target, dtype), target, dtype)


class _Parts(NamedTuple):
    model: nn.Module
    tokenizer: Tokenizer
    max_model_len: int | None
    own_dtype: mx.Dtype | None
    sampling_defaults: SamplingDefaults
    read_weights: Callable[[], None] = lambda: None  # those that place_weights does not read


def _open(path: Path, device: mx.Device, dtype: DType) -> _Parts:
    return _open_gguf(path, device, dtype) if path.is_file() else _open_directory(path)


def _unread(parts: _Parts, device: mx.Device, dtype: DType) -> UnreadModel:
    num_bytes = weight_bytes(parts.model, device, dtype, parts.own_dtype)
    own_dtype = weight_dtype(device, dtype, parts.own_dtype)
    return UnreadModel(parts.model, num_bytes, own_dtype, parts.max_model_len, parts.tokenizer)


def _open_gguf(path: Path, device: mx.Device, dtype: DType) -> _Parts:
    """On a CPU the blocks are expanded as they are read: MLX's quantized products are slow there."""
    gguf = read_whole(path)
    built = build_model(gguf, packed=device.type == mx.gpu)
    tokenizer = build_tokenizer(gguf)
    if tokenizer.vocab_size > built.vocab_size:
        raise ModelLoadError(f"{path}: {tokenizer.vocab_size} tokens, but embeddings for {built.vocab_size} only")

    def read_weights() -> None:
        with loading_bar(path.name, sum(tensor.num_bytes for tensor in gguf.tensors.values())) as advance:
            for num_bytes in built.load_weights(gguf, weight_dtype(device, dtype, built.own_dtype) or built.own_dtype):
                advance(num_bytes)

    defaults = from_gguf_metadata(path, gguf.metadata)
    return _Parts(built.model, tokenizer, built.max_model_len, built.own_dtype, defaults, read_weights)


def _open_directory(path: Path) -> _Parts:
    model, tokenizer, max_model_len = read_directory(path)
    return _Parts(model, tokenizer, max_model_len, own_dtype=None, sampling_defaults=read_sampling_defaults(path))


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

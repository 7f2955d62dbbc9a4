"""The hub's cache on this machine: what is in it, more of it, less of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import typer
from huggingface_hub import CachedRepoInfo, CacheNotFound, HfApi, hf_hub_download, scan_cache_dir, snapshot_download
from rich.table import Table

from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.errors import MLXAgentError, ModelLoadError
from mlx_agent_llm.models.configuration import check_configuration
from mlx_agent_llm.models.json_file import read_json_object
from mlx_agent_llm.models.served_types import served_types
from mlx_agent_llm.models.source import HUB_PATTERNS, HUB_TIMEOUT, find_demo, find_in_cache


class CachedModel(NamedTuple):
    """A model of the cache; model_type: of its configuration, None where that is not here."""

    name: str
    num_bytes: int
    is_complete: bool
    model_type: str | None
    is_served: str  # or why not


def show_cache(words: Sequence[str], json_file: Path | None) -> None:
    """All models here whose names contain one of the words."""
    rows = [row for row in cached_models() if not words or any(word.lower() in row.name.lower() for word in words)]
    table = Table("model", "GB", "type", "", title="Models on this machine", title_justify="left")
    for row in rows:
        served = row.is_served if row.is_complete else "not complete: `mlx-agent models pull` goes on"
        table.add_row(row.name, f"{row.num_bytes / 1e9:.2f}", row.model_type or "?", served)
    console = console_beside(json_file)
    console.print(table if rows else "No model is here: `mlx-agent models pull owner/name` downloads one.")
    write_json(json_file, [row._asdict() for row in rows])


def cached_models() -> list[CachedModel]:
    """The demo model if it is installed, and the hub's cache by name."""
    demo = find_demo()
    found = [] if demo is None else [CachedModel("demo", demo.stat().st_size, True, "llama", "served")]
    return found + [_cached_model(repo.repo_id, repo.size_on_disk) for repo in _repos()]


def pull_model(name: str, json_file: Path | None) -> None:
    """Download what is missing; of a type that is not served nothing but its configuration."""
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)  # first: without a network a download goes on trying
        config = Path(hf_hub_download(name, "config.json"))
        check_configuration(config, read_json_object(config))
        path = snapshot_download(name, allow_patterns=HUB_PATTERNS)
    except MLXAgentError:
        raise
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library and of the system
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelLoadError(f"{name!r} cannot be downloaded: {type(error).__name__}: {reason}") from error
    console_beside(json_file).print(f"{name} is in {path}", markup=False, highlight=False, soft_wrap=True)
    write_json(json_file, {"model": name, "path": path})


def remove_model(name: str, json_file: Path | None, *, is_sure: bool) -> None:
    """Delete all revisions of a model."""
    found = next((repo for repo in _repos() if repo.repo_id == name), None)
    if found is None:
        raise ModelLoadError(f"{name!r} is not in the hub's cache: `mlx-agent models list` shows what is")
    if not is_sure:
        typer.confirm(f"Delete {name}, {found.size_on_disk / 1e9:.2f} GB?", abort=True, err=True)
    alone = replace(scan_cache_dir(), repos=frozenset({found}))  # copies have revisions of the same names
    deletion = alone.delete_revisions(*(revision.commit_hash for revision in found.revisions))
    deletion.execute()
    num_bytes = deletion.expected_freed_size
    console_beside(json_file).print(f"{num_bytes / 1e9:.2f} GB are free again", highlight=False)
    write_json(json_file, {"model": name, "freed_bytes": num_bytes})


def _repos() -> list[CachedRepoInfo]:
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted((repo for repo in repos if repo.repo_type == "model"), key=lambda repo: repo.repo_id)


def _cached_model(name: str, num_bytes: int) -> CachedModel:
    path = find_in_cache(name)
    model_type = None if path is None else _model_type(path / "config.json")
    served = "?" if model_type is None else served_types().describe(model_type)
    return CachedModel(name, num_bytes, path is not None, model_type, served)


def _model_type(config: Path) -> str | None:
    try:
        value: Any = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):  # it is listed all the same
        return None
    return value if isinstance(value, str) else None

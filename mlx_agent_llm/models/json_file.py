"""A JSON file of a model's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_agent_llm.errors import ModelLoadError


def read_json(path: Path) -> Any:
    """The value of a JSON file; ModelLoadError when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not JSON: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; ModelLoadError when it holds anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: must hold a JSON object")
    return value

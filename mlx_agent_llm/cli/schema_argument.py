"""A schema on the command line: a JSON file, or `module:Model`, a class that pydantic reads."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import typer

from mlx_agent_llm.request.model_schema import is_schema_type


def read_schema(text: str, hint: str) -> dict[str, Any] | type[Any]:
    """The schema that the argument called `hint` stands for; a BadParameter says why it stands for none."""
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        return _read_file(path, hint)
    module, colon, name = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"{text!r} must be a .json file or module:Model", param_hint=hint)
    return _import_class(module, name, hint)


def _read_file(path: Path, hint: str) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} is no JSON file that can be read: {error}", param_hint=hint) from None
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{path} must hold a JSON Schema, which is an object", param_hint=hint)
    return schema


def _import_class(module: str, name: str, hint: str) -> type[Any]:
    sys.path.insert(0, "")  # the folder that the command was called in, as with python -m
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # any code of the module runs in there
        problem = f"{module}:{name} cannot be imported: {type(error).__name__}: {error}"
        raise typer.BadParameter(problem, param_hint=hint) from None
    finally:
        sys.path.remove("")
    if not (isinstance(found, type) and is_schema_type(found)):
        raise typer.BadParameter(f"{module}:{name} is no class that pydantic reads", param_hint=hint)
    return found

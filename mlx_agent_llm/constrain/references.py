"""Where a `$ref` of a JSON Schema points to, within the same document."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from mlx_agent_llm.errors import ConstraintError


def resolve_reference(schema: dict[str, Any], reference: str) -> Any:
    """Return the subschema that `#` or `#/a/b` names; a ConstraintError for anything else, or when it is not there."""
    if reference != "#" and not reference.startswith("#/"):
        raise ConstraintError(f"$ref={reference!r} must be '#' or a pointer '#/...' within the schema")
    target: Any = schema
    for step in reference.split("/")[1:]:
        target = _child(target, unquote(step).replace("~1", "/").replace("~0", "~"), reference)
        if isinstance(target, dict) and isinstance(target.get("$id"), str):
            raise ConstraintError(f"$ref={reference!r} enters a schema with its own $id={target['$id']!r}")
    if not isinstance(target, dict | bool):
        raise ConstraintError(f"$ref={reference!r} must name a schema, not {target!r}")
    return target


def _child(parent: Any, step: str, reference: str) -> Any:
    if isinstance(parent, dict) and step in parent:
        return parent[step]
    if isinstance(parent, list) and step.isdecimal() and int(step) < len(parent):
        return parent[int(step)]
    raise ConstraintError(f"$ref={reference!r} cannot be resolved: there is no {step!r}")


def pointer(*steps: str | int) -> str:
    """Return the JSON pointer of these steps, '' for none."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)

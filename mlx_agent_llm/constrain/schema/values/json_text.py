"""How a value is written: JSON text on one line, in the one form that the grammars allow."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from mlx_agent_llm.request.constraints import SEPARATORS


def write_json(value: Any, separators: tuple[str, str] = SEPARATORS) -> str:
    """A value as the grammars write it: on one line, with these separators, characters as they are."""
    return _encoder(separators).encode(value)


@lru_cache(maxsize=16)
def _encoder(separators: tuple[str, str]) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=separators)


def canonical_json(value: Any) -> str:
    """The same text for all values that JSON Schema takes for equal."""
    return write_json(_canonical(value))


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return {name: _canonical(value[name]) for name in sorted(value)} if isinstance(value, dict) else value

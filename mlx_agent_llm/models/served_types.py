"""Which model types of mlx-lm are served: what was found when each was compared with mlx-lm itself."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Literal, NamedTuple

Verdict = Literal["equal", "refused", "wrong", "not run"]


class ServedType(NamedTuple):
    """One model type. layers: the caches that mlx-lm gives it; reason: why it is refused or could not be compared."""

    model_type: str
    layers: str
    verdict: Verdict
    reason: str


class TypeTable(NamedTuple):
    """What was found, with the version of mlx-lm that it holds for."""

    mlx_lm: str
    types: tuple[ServedType, ...]

    def describe(self, model_type: str) -> str:
        """Whether a type is served, in words."""
        found = next((row for row in self.types if row.model_type == model_type), None)
        if found is None:
            return f"mlx-lm {self.mlx_lm} has no model type {model_type!r}"
        return "served" if found.verdict == "equal" else f"{found.verdict}: {found.reason}"


def served_types() -> TypeTable:
    """The table that comes with the package."""
    table = json.loads(files("mlx_agent_llm.models").joinpath("types.json").read_text(encoding="utf-8"))
    return TypeTable(table["mlx_lm"], tuple(ServedType(**row) for row in table["types"]))

"""The values of a config.json that every encoder reads, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_agent_llm.config import check_range
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders.functions import ACTIVATIONS

_LAYER_TYPES = ("full_attention", "sliding_attention")


class ConfigValues:
    """A config.json whose sizes are asked for by name; of several names the first one that is there counts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def size(self, *names: str) -> int:
        """An integer of at least 1."""
        name = next((name for name in names if self._config.get(name) is not None), None)
        if name is None:
            raise ModelLoadError(f"config.json names no {names[0]}")
        try:
            check_range(name, self._config[name], 1)
        except ValueError as error:
            raise ModelLoadError(f"config.json: {error}") from error
        return int(self._config[name])

    def heads(self, *names: str, of: Sequence[str]) -> int:
        """The number of heads that a size is divided by."""
        num_heads, size = self.size(*names), self.size(*of)
        if size % num_heads:
            raise ModelLoadError(f"config.json: {of[0]}={size} must be a multiple of {names[0]}={num_heads}")
        return num_heads

    def activation(self, name: str) -> str:
        """The name of a function in ACTIVATIONS."""
        activation: str = self._config.get(name, "gelu")
        if activation not in ACTIVATIONS:
            raise UnsupportedModelError(f"{name}={activation!r} is not supported: {', '.join(ACTIVATIONS)}")
        return activation

    def require(self, variant: Mapping[str, Any]) -> None:
        """Raise an UnsupportedModelError where a value that is named is another one."""
        for name, value in variant.items():
            if self._config.get(name, value) != value:
                raise UnsupportedModelError(f"{name}={self._config[name]!r} is not supported: only {value!r}")


def read_are_local(config: Mapping[str, Any], by_default: Sequence[bool]) -> tuple[bool, ...]:
    """Which layers see a window, by their layer_types; by_default: of files that name none."""
    kinds = config.get("layer_types") or [_LAYER_TYPES[is_local] for is_local in by_default]
    if len(kinds) != len(by_default) or not set(kinds) <= set(_LAYER_TYPES):
        raise ModelLoadError(
            f"config.json: layer_types={kinds!r:.100} must be {len(by_default)} of {', '.join(_LAYER_TYPES)}"
        )
    return tuple(kind == "sliding_attention" for kind in kinds)


def read_rotary_base(config: Mapping[str, Any], layer_type: str, older_name: str, default: float) -> float:
    """The base of a type of layers, in rope_parameters or under an older file's name."""
    rope = (config.get("rope_parameters") or {}).get(layer_type) or {}
    if config.get("rope_scaling") or (rope.get("rope_type", "default")) != "default":
        raise UnsupportedModelError(f"rope_parameters={rope!r:.100}: only rope_type='default' is supported")
    return float(rope.get("rope_theta", config.get(older_name) or default))

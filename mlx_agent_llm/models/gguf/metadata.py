"""What a GGUF file says about its model under its architecture's name, and which of it was asked for."""

from __future__ import annotations

from math import prod
from typing import Any

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.file import GGUFFile, Value
from mlx_agent_llm.models.gguf.weights import read_floats

# Keys that change nothing, whatever their value is, and keys that are harmless with this value only.
_IRRELEVANT = frozenset({"vocab_size", "tensor_data_layout", "rope.scaling.finetuned"})
_NEUTRAL: dict[str, Value] = {
    "expert_count": 0,
    "expert_used_count": 0,
    "expert_group_count": 0,
    "expert_group_used_count": 0,
    "attention.causal": True,
    "nextn_predict_layers": 0,
}


class Metadata:
    """The values of ARCHITECTURE.key by key; what nobody asked for is refused at the end, not ignored."""

    def __init__(self, gguf: GGUFFile) -> None:
        self.gguf = gguf
        self.architecture = gguf.require("general.architecture", str)
        self._asked = set[str]()
        self._num_items = sum(prod(tensor.shape) for tensor in gguf.tensors.values())
        self._tensors = set[str]()

    def size(self, name: str, default: int | None = None) -> int:
        """A size that no dimension of the file's tensors can be smaller than; required where there is no default."""
        value = self.integer(name, default)
        bound = 2**31 if name.endswith("context_length") else self._num_items
        if not 1 <= value <= bound:
            raise ModelLoadError(f"{self.gguf.path}: {self.key(name)}={value} must be between 1 and {bound}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number, required where there is no default."""
        self._asked.add(name)
        value = self.gguf.require(self.key(name), int) if default is None else self.gguf.get(self.key(name), int)
        return default if value is None and default is not None else value  # type: ignore[return-value]

    def positive(self, name: str, default: float | None = None) -> float:
        """A positive number, required where there is no default."""
        self._asked.add(name)
        value = self.gguf.require(self.key(name), float) if default is None else self.gguf.get(self.key(name), float)
        if value is None:
            assert default is not None
            return default
        if not 0 < value < float("inf"):
            raise ModelLoadError(f"{self.gguf.path}: {self.key(name)}={value} must be positive and finite")
        return value

    def text(self, name: str) -> str | None:
        """A text, or None."""
        self._asked.add(name)
        return self.gguf.get(self.key(name), str)

    def sizes(self, name: str, length: int) -> list[int]:
        """A number for each layer; one number stands for all."""
        self._asked.add(name)
        value = self.gguf.metadata.get(self.key(name))
        values: list[Any] = value if isinstance(value, list) else [value] * length
        if len(values) != length or not all(isinstance(one, int) and 0 <= one <= self._num_items for one in values):
            raise ModelLoadError(f"{self.gguf.path}: {self.key(name)}={value!r} must be {length} sizes, one a layer")
        return values

    def only(self, name: str, *allowed: Value) -> None:
        """Refuse a value other than the allowed ones; an absent one is fine."""
        self._asked.add(name)
        value = self.gguf.metadata.get(self.key(name))
        if value is not None and value not in allowed:
            shown = " or ".join(map(repr, allowed))
            raise UnsupportedModelError(f"{self.gguf.path}: {self.key(name)}={value!r} must be {shown}")

    def has(self, name: str) -> bool:
        """Whether the file has this value."""
        return self.key(name) in self.gguf.metadata

    def has_tensor(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self.gguf.tensors

    def take_floats(self, name: str, length: int) -> list[float] | None:
        """The numbers of a tensor that belongs to the configuration, and to no layer; None when there is none."""
        tensor = self.gguf.tensors.get(name)
        if tensor is None:
            return None
        if tensor.shape != (length,):
            raise ModelLoadError(f"{self.gguf.path}: tensor {name!r} has shape {tensor.shape}, not {(length,)}")
        self._tensors.add(name)
        return read_floats(tensor)

    def key(self, name: str) -> str:
        """The key as it stands in the file."""
        return f"{self.architecture}.{name}"

    @property
    def taken_tensors(self) -> frozenset[str]:
        """The tensors that went into the configuration."""
        return frozenset(self._tensors)

    def check_all_used(self) -> None:
        """Raise an UnsupportedModelError for a key that was not asked for: ignoring it would give wrong text."""
        for key, value in self.gguf.metadata.items():
            name = key.removeprefix(f"{self.architecture}.")
            if name == key or name in self._asked or name in _IRRELEVANT:
                continue
            if name not in _NEUTRAL or _NEUTRAL[name] != value:
                raise UnsupportedModelError(f"{self.gguf.path}: {key}={value!r} is not supported")

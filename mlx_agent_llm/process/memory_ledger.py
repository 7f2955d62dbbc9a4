"""What the models of this process take together: MLX's arrays, and what the steps of open models add to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import mlx.core as mx

from mlx_agent_llm.process.device_memory import GIB


@dataclass(frozen=True)
class ModelMemory:
    """What one open model takes, in bytes.

    weights: also where another model has the same arrays. pool: of keys, values and states. An engine's draft model is
    part of both; its caches fill as it drafts. step: the arrays of a full step or batch, estimated; they come and go.
    """

    kind: Literal["Engine", "Embedder", "Reranker"]
    name: str
    weights: int
    pool: int
    step: int


@dataclass(frozen=True)
class MemoryLedger:
    """What this process takes, in bytes.

    models: those that are open, in the order in which they were opened. arrays: all of MLX that are alive, with these
    models' weights and pools. freed_buffers: what MLX keeps to use again, and gives back when it needs room.
    """

    models: tuple[ModelMemory, ...]
    arrays: int
    freed_buffers: int

    @property
    def total(self) -> int:
        """What is taken while all models compute full steps at the same time; freed buffers become their arrays."""
        return self.arrays + sum(model.step for model in self.models)

    def describe_models(self) -> str:
        """The open models with what each takes, in words; empty without any."""
        return ", ".join(
            f"{model.kind} {model.name} {(model.weights + model.pool + model.step) / GIB:.2f}" for model in self.models
        )


class OpenModels:
    """What every open model takes, from any number of threads; one that nobody has any more is open no longer.

    loading: held from the check whether a model fits until it is added, so that the next one is checked beside it.
    """

    def __init__(self) -> None:
        self.loading = threading.RLock()
        self._lock = threading.Lock()
        self._models = WeakKeyDictionary[object, ModelMemory]()

    def add(self, owner: object, memory: ModelMemory) -> None:
        """Count what a model takes until it is removed."""
        with self._lock:
            self._models[owner] = memory

    def remove(self, owner: object) -> None:
        """Count a model no longer; harmless for one that is not counted."""
        with self._lock:
            self._models.pop(owner, None)

    def ledger(self) -> MemoryLedger:
        """What is taken now."""
        with self._lock:
            models = tuple(self._models.values())
        return MemoryLedger(models, mx.get_active_memory(), mx.get_cache_memory())


open_models = OpenModels()


def memory_ledger() -> MemoryLedger:
    """What the engines, embedders and rerankers of this process take together, as a later load counts it."""
    return open_models.ledger()

"""A model that is loaded when it is first needed, as the frameworks' classes have one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mlx_agent_llm.embedder.embedder import Embedder
from mlx_agent_llm.embedder.reranker import Reranker

M = TypeVar("M", Embedder, Reranker)


class OnFirstUse(Generic[M]):
    """Holds the model of one object; any thread may ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: M | None = None

    def open(self, load: Callable[[], M]) -> M:
        """The model, which the first call loads, as does the first one after a close."""
        with self._lock:
            if self._model is None:
                self._model = load()
            return self._model

    def close(self) -> None:
        """Close the model if there is one."""
        with self._lock:
            model, self._model = self._model, None
        if model is not None:
            model.close()

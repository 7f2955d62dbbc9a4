"""An embedder that is loaded when it is first needed, as the frameworks' classes have one."""

from __future__ import annotations

import threading

from mlx_agent_llm.embedder.embedder import Embedder


class EmbedderOnFirstUse:
    """Holds the embedder of one object; any thread may ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    def open(self, model: str, dimensions: int | None) -> Embedder:
        """The embedder, which the first call loads, as does the first one after a close."""
        with self._lock:
            if self._embedder is None:
                self._embedder = Embedder.load(model, dimensions=dimensions)
            return self._embedder

    def close(self) -> None:
        """Close the embedder if there is one."""
        with self._lock:
            embedder, self._embedder = self._embedder, None
        if embedder is not None:
            embedder.close()

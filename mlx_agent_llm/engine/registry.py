"""The engines that chat models of both frameworks share by name; knows nothing of chat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from weakref import WeakSet

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.engine import Engine


class EngineHolder:
    """Somebody who uses shared engines: one for each chat model."""


@dataclass(frozen=True)
class _SharedEngine:
    """An engine, or one that is being loaded, and who holds it; holders that are gone vanish from the set."""

    engine: Future[Engine] = field(default_factory=Future)
    holders: WeakSet[EngineHolder] = field(default_factory=WeakSet)


class EngineRegistry:
    """Engines by (model, config): those who ask for the same one share it, and the first one's call loads it.

    An engine stays loaded until its last living holder has released it, so that chat models may come and go. Every
    method may be called from any thread.
    """

    def __init__(self, load: Callable[[str, EngineConfig], Engine] = Engine.load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._shared: dict[tuple[str, EngineConfig], _SharedEngine] = {}

    def acquire(self, holder: EngineHolder, model: str, config: EngineConfig) -> Engine:
        """The engine, waiting while it loads; what keeps it from loading is raised to all who wait."""
        with self._lock:
            shared = self._shared.get((model, config))
            is_first = shared is None
            shared = shared or self._shared.setdefault((model, config), _SharedEngine())
            shared.holders.add(holder)
        if is_first:
            self._fill(shared, model, config)
        return shared.engine.result()

    def find(self, model: str, config: EngineConfig) -> Engine | None:
        """The engine when it is loaded already; it is not held for whoever asks."""
        with self._lock:
            shared = self._shared.get((model, config))
        if shared is None or not shared.engine.done() or shared.engine.exception() is not None:
            return None
        return shared.engine.result()

    def release(self, holder: EngineHolder) -> None:
        """Give back every engine of `holder` and close those that nobody else holds."""
        with self._lock:
            held = [(key, shared) for key, shared in self._shared.items() if holder in shared.holders]
            for _, shared in held:
                shared.holders.discard(holder)
            unused = [self._shared.pop(key) for key, shared in held if not shared.holders]
        for shared in unused:
            if shared.engine.exception() is None:
                shared.engine.result().close()

    def _fill(self, shared: _SharedEngine, model: str, config: EngineConfig) -> None:
        try:
            shared.engine.set_result(self._load(model, config))
        except BaseException as error:
            with self._lock:
                self._shared.pop((model, config), None)
            shared.engine.set_exception(error)


SHARED_ENGINES = EngineRegistry()
"""The registry of this process: a LangChain and a LlamaIndex model of the same name and config share one engine."""

"""The models that the server has by name: each is loaded when it is first asked for, and may make room for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.core.summed_stats import summed_stats
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.errors import CapacityError, ModelLoadError
from mlx_agent_llm.server.api_error import APIError

DEFAULT = "default"
"""The name that leads to the first model, whatever it is called."""

State = Literal["unloaded", "loading", "loaded", "failed"]


@dataclass
class ServedModel:
    """A model by its name; source: where it is loaded from. num_users: requests that hold its engine.

    counted: what its engines counted that were unloaded.
    """

    name: str
    source: str
    created: int
    engine: Engine | None = None
    state: State = "unloaded"
    num_users: int = 0
    used_at: float = 0.0
    counted: EngineStats | None = None

    def stats(self) -> EngineStats | None:
        """What all its engines have counted, beside the state of the one that is loaded; None before the first one."""
        if self.engine is None:
            return self.counted
        return summed_stats(self.counted, self.engine.stats())


class ServedModels:
    """Lends engines to requests. A model of which no request is open is unloaded when another one needs its memory.

    sources: by names, the first of which is also DEFAULT. load: gives a source's engine, and raises a CapacityError
    where the device has too little memory beside those that are loaded.
    """

    def __init__(
        self, sources: Mapping[str, str], load: Callable[[str], Engine], max_loaded: int | None = None
    ) -> None:
        created = int(time.time())
        self._models = {name: ServedModel(name, source, created) for name, source in sources.items()}
        self._load = load
        self._max_loaded = max_loaded or len(self._models)
        self._loading = asyncio.Lock()

    @property
    def models(self) -> list[ServedModel]:
        """All of them, the default one first."""
        return list(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model of a name; an unknown one is a 404 that names those that there are."""
        if name == DEFAULT:
            return self.models[0]
        if name not in self._models:
            known = ", ".join(map(repr, [DEFAULT, *self._models]))
            raise APIError(404, f"model={name!r} is not served; known models: {known}", "model", "model_not_found")
        return self._models[name]

    async def borrow(self, name: str, held: ExitStack) -> tuple[ServedModel, Engine]:
        """The model and its engine, loaded if need be; it stays loaded until `held` is closed."""
        model = self.find(name)
        model.num_users += 1
        held.callback(self._give_back, model)
        if model.engine is None:
            async with self._loading:
                if model.engine is None:
                    model.engine = await self._load_beside_others(model)
        return model, model.engine

    async def preload(self) -> None:
        """Load the default model."""
        with ExitStack() as held:
            await self.borrow(DEFAULT, held)

    def close(self) -> None:
        """Close all engines: requests in flight end with EngineClosedError."""
        for model in self.models:
            if model.engine is not None:
                model.engine.close()

    async def _load_beside_others(self, model: ServedModel) -> Engine:
        model.state = "loading"
        try:
            while sum(other.engine is not None for other in self.models) >= self._max_loaded:
                await self._unload_least_recent()
            engine = await self._load_with_room(model.source)
        except BaseException:
            model.state = "failed"
            raise
        model.state = "loaded"
        return engine

    async def _load_with_room(self, source: str) -> Engine:
        while True:
            try:
                return await asyncio.to_thread(partial(self._load, source))
            except CapacityError as error:
                if all(other.engine is None for other in self.models):
                    raise ModelLoadError(str(error)) from error  # of the model, and of no request
                await self._unload_least_recent()

    async def _unload_least_recent(self) -> None:
        if not (idle := self._idle()):
            raise APIError(
                503, "every model that is loaded has open requests", "model", "no_room_for_model", retry_after=5
            )
        oldest = min(idle, key=lambda model: model.used_at)
        engine, before = oldest.engine, oldest.counted
        assert engine is not None
        oldest.counted, oldest.engine, oldest.state = oldest.stats(), None, "unloaded"
        await asyncio.to_thread(engine.close)
        oldest.counted = summed_stats(before, engine.stats())  # with what its last step has counted

    def _idle(self) -> list[ServedModel]:
        return [model for model in self.models if model.engine is not None and not model.num_users]

    def _give_back(self, model: ServedModel) -> None:
        model.num_users -= 1
        model.used_at = time.monotonic()

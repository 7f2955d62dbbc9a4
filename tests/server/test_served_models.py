"""Models by name: loaded when they are asked for, unloaded when they are not, and never mixed."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from mlx_agent_llm import CapacityError, Engine, EngineConfig, ModelLoadError
from mlx_agent_llm.engine import preflight
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.process.memory_ledger import memory_ledger
from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.app import make_app
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from tests.support.servers import ASK, Visitor, ask, client_of, scripted_engine

LONG = "Hello. " * 100


class Shelf:
    """Loads engines that say their source's name, as many at a time as there is room for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.loaded: list[tuple[str, Engine]] = []

    def load(self, source: str) -> Engine:
        if sum(engine._worker._thread.is_alive() for _, engine in self.loaded) >= self.room:
            raise CapacityError("no room")
        if source == "broken":
            raise ModelLoadError("broken: cannot be read")
        engine = scripted_engine([f"I am {source}. {LONG}"])
        self.loaded.append((source, engine))
        return engine


def serve(room: int, names: str = "a b c", max_loaded: int | None = None) -> tuple[Shelf, Any, ServedModels]:
    shelf = Shelf(room)
    models = ServedModels({name: name for name in names.split()}, shelf.load, max_loaded)
    return shelf, make_app(Service(models, ServerSettings())), models


async def said(app: Any, model: str) -> Any:
    body = {"model": model, "messages": ASK, "max_tokens": 7}
    response = await ask(app, "/v1/chat/completions", body)
    answer = response.json()
    return answer["choices"][0]["message"]["content"] if response.status_code == 200 else response


@pytest.mark.parametrize(("room", "max_loaded"), [(2, None), (9, 2)])
async def test_the_least_recently_used_model_makes_room(room: int, max_loaded: int | None) -> None:
    shelf, app, models = serve(room, max_loaded=max_loaded)
    try:
        assert [await said(app, name) for name in ("a", "b", "a", "c", "a")] == [
            f"I am {name}." for name in ("a", "b", "a", "c", "a")
        ]
        assert [name for name, _ in shelf.loaded] == ["a", "b", "c"]
        assert [model.state for model in models.models] == ["loaded", "unloaded", "loaded"]
    finally:
        models.close()


async def test_the_default_is_the_first_model() -> None:
    _, app, models = serve(1)
    try:
        assert await said(app, "default") == "I am a."
        async with client_of(app) as client:
            listed = (await client.get("/v1/models")).json()["data"]
        assert [(entry["id"], entry["root"], entry["state"]) for entry in listed] == [
            ("a", "a", "loaded"),
            ("b", "b", "unloaded"),
            ("c", "c", "unloaded"),
            ("default", "a", "loaded"),
        ]
    finally:
        models.close()


async def test_a_model_with_open_requests_stays_and_others_are_told_to_come_again() -> None:
    shelf, app, models = serve(1)
    try:
        body = {"model": "a", "messages": ASK, "stream": True, "max_tokens": 200}
        stream = Visitor(app, "/v1/chat/completions", body)
        await stream.took(b'"I"')
        refused = await said(app, "b")
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "no_room_for_model"
        await stream.task
        assert b"".join(stream.taken).endswith(b"data: [DONE]\n\n")
        assert await said(app, "b") == "I am b."
        assert [name for name, _ in shelf.loaded] == ["a", "b"]
    finally:
        models.close()


@pytest.mark.long
async def test_two_models_of_which_one_fits_take_turns_under_one_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_demo() is None:
        pytest.skip("the demo model is not installed")
    config = EngineConfig(kv_cache_tokens=2048, max_num_seqs=4, device="cpu")
    with Engine.load("demo", config):
        room = int(1.5 * memory_ledger().total)
    monkeypatch.setattr(preflight, "device_bytes", lambda device: room)
    models = ServedModels({"first": "demo", "second": "demo"}, lambda source: Engine.load(source, config))
    app = make_app(Service(models, ServerSettings()))
    try:
        for name, states in (("first", "loaded unloaded"), ("second", "unloaded loaded"), ("first", "loaded unloaded")):
            assert isinstance(await said(app, name), str)
            assert [model.state for model in models.models] == states.split()
            assert memory_ledger().total <= room
    finally:
        models.close()


async def test_requests_that_come_together_load_a_model_once() -> None:
    shelf, app, models = serve(1)
    try:
        assert await asyncio.gather(*(said(app, "a") for _ in range(4))) == ["I am a."] * 4
        assert len(shelf.loaded) == 1
    finally:
        models.close()


async def test_a_model_that_cannot_be_loaded_is_told_and_harms_no_other() -> None:
    _, app, models = serve(2, "a broken")
    try:
        refused = await said(app, "broken")
        assert refused.status_code == 503 and "cannot be read" in refused.json()["error"]["message"]
        assert await said(app, "a") == "I am a."
    finally:
        models.close()


async def test_a_model_that_never_fits_is_not_the_fault_of_a_request() -> None:
    _, app, _ = serve(0)
    refused = await said(app, "a")
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "model_not_loaded"


async def test_an_unknown_name_is_not_found() -> None:
    _, _, models = serve(1)
    with ExitStack() as held, pytest.raises(APIError, match="known models: 'default', 'a'"):
        await models.borrow("nobody", held)

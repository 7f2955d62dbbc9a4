"""System prompts that are there before anybody asks."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm import ContextLengthError, Engine
from mlx_agent_llm.server.warm_prompts import WarmPrompt, load_warm, read_warm_prompts
from tests.support.servers import ADD_TOOL, ASK, scripted_engine

SYSTEM = "You are a clerk who answers in one word. " * 20


def test_the_first_request_finds_its_system_prompt_and_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "warm.json"
    path.write_text(json.dumps([{"system": SYSTEM, "tools": [ADD_TOOL]}, {"system": "Short."}]))
    monkeypatch.setattr(Engine, "load", lambda _: scripted_engine(["Hello."]))
    with load_warm("any", read_warm_prompts(path)) as engine:
        usage = engine.chat([{"role": "system", "content": SYSTEM}, *ASK], tools=[ADD_TOOL]).usage
    assert usage.cached_tokens > len(SYSTEM)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ('{"system": "a"}', "valid array"),
        ('[{"system": 1}]', r"\[0\]\['system'\]"),
        ('[{"system": "a", "colour": 1}]', "colour"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "warm.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_warm_prompts(path)


def test_a_prompt_that_does_not_fit_closes_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = scripted_engine(["Hello."])
    monkeypatch.setattr(Engine, "load", lambda _: engine)
    with pytest.raises(ContextLengthError):
        load_warm("any", [WarmPrompt(system="a" * 100_000)])
    assert not engine._finalizer.alive

"""mlx-agent serve: what it says when it is ready, and when it cannot be."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_agent_llm import Engine
from mlx_agent_llm.server import app as server_app
from tests.cli.test_demo import assert_is_one_line, mlx_agent_here
from tests.support.servers import scripted_engine, wait_until


def test_a_model_that_cannot_be_loaded_is_one_line_and_nothing_is_said_to_be_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlx_agent_here(monkeypatch, "serve", "no-such-model", "--port", "0") == 1
    assert_is_one_line(capsys.readouterr().err, "ModelLoadError", "no-such-model")


def test_where_it_serves_is_told_when_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, healths = tmp_path / "serve.json", list[int]()

    def look(server: server_app.DrainingServer) -> None:
        wait_until(file.exists)
        found = json.loads(file.read_text())
        assert found["models"] == ["m"]
        wait_until(lambda: httpx.get(f"{found['url']}/health").status_code == 200)
        healths.append(200)

    monkeypatch.setattr(Engine, "load", lambda source: scripted_engine(["Hello."]))
    monkeypatch.setattr(server_app, "DrainingServer", watched_by(look))
    assert mlx_agent_here(monkeypatch, "serve", "--model", "m=source", "--port", "0", "--json", str(file)) == 0
    assert healths == [200]
    assert_is_one_line(capsys.readouterr().err, f"serving source on {json.loads(file.read_text())['url']}")


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert mlx_agent_here(monkeypatch, "serve", "demo", "--port", port) == 1
    assert_is_one_line(capsys.readouterr().err, port, "address already in use")


def watched_by(look: Callable[[server_app.DrainingServer], None]) -> type[server_app.DrainingServer]:
    """Servers that are looked at from a thread, and end then."""

    class Watched(server_app.DrainingServer):
        def run(self, *arguments: Any) -> None:
            def watch() -> None:
                try:
                    look(self)
                finally:
                    self.should_exit = True

            thread = threading.Thread(target=watch)
            thread.start()
            super().run(*arguments)
            thread.join(60)

    return Watched

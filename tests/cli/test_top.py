"""mlx-agent top: another process's engine over its socket, and over a server's metrics."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.cli.top.scrape import read_exposition
from mlx_agent_llm.engine.stats_socket import VARIABLE
from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.metrics import exposition, serve_metrics
from mlx_agent_llm.view.snapshot import snapshot_of
from tests.cli.test_demo import assert_is_one_line, mlx_agent_here
from tests.support.engines import MakeEngine

OTHER_PROCESS = """
from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.testing import RandomLogitsModel
model = RandomLogitsModel()
with Engine.from_parts(model, model.tokenizer, EngineConfig(kv_cache_tokens=4096, check_model=False)) as engine:
    engine.generate(["abc"], SamplingParams(max_tokens=6, ignore_eos=True))
    print("ready", flush=True)
    input()
"""


def test_an_engine_of_another_process_is_seen_over_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", OTHER_PROCESS], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert mlx_agent_here(monkeypatch, "top", "--seconds", "0.05", "--json", "-") == 0  # the variable says where
        process.communicate("\n")
    printed = capsys.readouterr()
    [engine] = json.loads(printed.out)
    assert engine["num_generated_tokens"] == 6 and engine["engine"] == f"{process.pid}-0"
    assert "6 generated, 3 of prompts computed" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_url_s_metrics_are_read_as_the_engine_tells_them(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine()
    engine.generate(["abc", "abcdef"], SamplingParams(max_tokens=5, ignore_eos=True))
    told = snapshot_of(engine.model_name, engine.stats())
    [read] = read_exposition(exposition(engine).decode(), "url")
    for name in ("model", "num_blocks", "num_cached_blocks", "num_used_blocks", "num_generated_tokens"):
        assert getattr(read, name) == getattr(told, name), name
    assert read.prefix_hit_rate == told.prefix_hit_rate
    assert dict(read.mean_phase_times) == pytest.approx(dict(told.mean_phase_times))
    stop = serve_metrics(engine, port=9417)
    try:
        assert mlx_agent_here(monkeypatch, "top", "http://127.0.0.1:9417/metrics", "--seconds", "0.05") == 0
    finally:
        stop()
    assert "10 generated" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "<html>", 'up{job="x"} 1\n', 'mlx_agent:step_phase_seconds_mean{phase="a"} 1\n'])
def test_a_page_that_shows_no_engine_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(MLXAgentError, match="http://a shows no metrics of an engine"):
        read_exposition(text, "http://a")


def test_where_nothing_is_or_nothing_answers_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlx_agent_here(monkeypatch, "top", "no/such/folder") == 2
    assert "must be a folder" in " ".join(capsys.readouterr().err.split())
    assert mlx_agent_here(monkeypatch, "top", "http://127.0.0.1:9/metrics") == 1
    assert_is_one_line(capsys.readouterr().err, "URLError", "refused")

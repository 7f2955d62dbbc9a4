"""The command as a whole: what `--help` does not load, exit codes, JSON, and no traceback."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_agent_llm.bench import WORKLOADS
from mlx_agent_llm.cli.bench.command import WORKLOADS as NAMED_WORKLOADS
from tests.cli.test_demo import assert_is_one_line, mlx_agent, mlx_agent_here

# What takes a second or more to import, or leads to what does. (typer itself imports pydantic for a command.)
HEAVY = ("mlx", "mlx_lm", "numpy", "transformers", "torch", "jsonschema", "huggingface_hub", "xgrammar")
HEAVY_OF_OURS = ("mlx_agent_llm.engine", "mlx_agent_llm.api", "mlx_agent_llm.models", "mlx_agent_llm.bench")
COMMANDS = (
    *([], ["demo"], ["bench"], ["doctor"], ["chat"], ["eval"], ["extract"], ["serve"], ["top"]),
    *(["models", *name] for name in ([], ["list"], ["show"], ["pull"], ["rm"], ["recommend"], ["types"])),
    *(["kv", *name] for name in ([], ["list"], ["prune"], ["verify"])),
)
SHOW_HELP = f"""
import sys
from mlx_agent_llm.cli import main
for command in {COMMANDS!r}:
    sys.argv = ["mlx-agent", *command, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0, command
print("\\n".join(sys.modules), file=sys.stderr)
"""


def test_help_of_every_command_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW_HELP], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == len(COMMANDS)
    loaded = set(done.stderr.split())
    assert "mlx_agent_llm.cli.app" in loaded
    assert loaded & {*HEAVY, *HEAVY_OF_OURS, "langchain_core"} == set()


def test_the_workloads_that_help_names_are_those_that_there_are() -> None:
    assert tuple(WORKLOADS) == NAMED_WORKLOADS


def test_help_and_nothing_at_all_differ_in_their_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlx_agent_here(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert mlx_agent_here(monkeypatch) == 2
    assert capsys.readouterr().out.split() == shown.split() != []


@pytest.mark.parametrize(
    ("arguments", "problem", "command"),
    [
        (["no-such-command"], "No such command 'no-such-command'", "mlx-agent"),
        (["models", "frobnicate"], "No such command 'frobnicate'", "mlx-agent models"),
        (["chat", "--no-such-option"], "No such option: --no-such-option", "mlx-agent chat"),
        (["chat", "--max-tokens", "many"], "--max-tokens", "mlx-agent chat"),
        (["extract"], "Missing argument 'schema'", "mlx-agent extract"),
        (["bench", "nothing"], "'nothing' must be one of single,", "mlx-agent bench"),
        (["eval", "--suite", "nothing"], "'nothing' must be one of bfcl,", "mlx-agent eval"),
        (["kv", "prune", "--max-bytes", "-1"], "greater than or equal to 0", "mlx-agent kv prune"),
        (["serve"], "give a MODEL", "mlx-agent serve"),
        (["serve", "demo", "--host", "0.0.0.0"], "needs an api_key_file", "mlx-agent serve"),
    ],
)
def test_a_wrong_call_is_one_line_that_says_where_help_is(
    arguments: list[str],
    problem: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mlx_agent_here(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert_is_one_line(printed.err, problem, f"See `{command} --help`")


def test_without_standard_streams_a_command_does_its_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("stdin", "stdout", "stderr"):  # as Python leaves them where a process is started without
        monkeypatch.setattr(sys, name, None)
    file = tmp_path / "types.json"
    assert mlx_agent_here(monkeypatch, "models", "types", "qwen3", "--json", str(file)) == 0
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    assert "qwen3" in {row["model_type"] for row in json.loads(file.read_text())["types"]}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is /dev/full")
def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlx_agent_here(monkeypatch, "models", "types", "qwen3", "--json", "/dev/full") == 1
    assert_is_one_line(capsys.readouterr().err, "OSError", "No space left")


def test_json_on_standard_output_is_alone_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlx-agent", "models", "types", "qwen3", "--json", "-"])
    assert mlx_agent_here(monkeypatch, "models", "types", "qwen3", "--json", "-") == 0
    printed = capsys.readouterr()
    assert "qwen3" in {row["model_type"] for row in json.loads(printed.out)["types"]}
    assert "served" in printed.err


def test_a_file_for_json_in_no_folder_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlx_agent_here(monkeypatch, "models", "types", "--json", "no/such/folder/x.json") == 2
    assert "no/such/folder is no folder" in capsys.readouterr().err.replace("\n", "")


def test_an_interrupted_command_ends_with_130_and_says_nothing() -> None:
    code = """
import sys, time, types
slow = types.SimpleNamespace(show_types=lambda words, file: print("ready", flush=True) or time.sleep(60))
sys.modules["mlx_agent_llm.cli.models.types"] = slow
from mlx_agent_llm.cli import main
sys.argv = ["mlx-agent", "models", "types"]
main()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr.strip() == ""


def test_where_mlx_cannot_be_loaded_help_works_and_everything_else_says_what_to_install() -> None:
    block = "sys.modules['mlx.core'] = None"
    assert mlx_agent("--help", setup=block).returncode == 0
    process = mlx_agent("models", "show", "demo", setup=block)
    assert process.returncode == 1 and "mlx-agent-llm[cpu]" in process.stderr and "Traceback" not in process.stderr

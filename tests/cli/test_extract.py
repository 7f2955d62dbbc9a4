"""mlx-agent extract: on a model that says what it is told to, and on the demo model."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from rich.progress import Task, TaskID
from typer.testing import CliRunner

from mlx_agent_llm import Engine
from mlx_agent_llm.cli.app import app
from mlx_agent_llm.cli.extract.run import _PaceColumn
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.testing import ScriptedModel
from tests.support.engines import MakeEngine
from tests.support.servers import wait_until

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A schema and three documents, each of which names a city in its last word."""
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    for name, city in (("a.txt", "Rome"), ("b.md", "Paris"), ("c.txt", "Lima")):
        (tmp_path / name).write_text(f"A letter from {city}")
    return tmp_path


def city_of(prompt: str) -> str:
    letter = next(line for line in prompt.splitlines() if line.startswith("A letter"))
    return json.dumps({"city": letter.removesuffix("<|im_end|>").split()[-1]})


@pytest.fixture
def run(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    """run(*arguments): the exit code and what was printed; the schema and the output are given."""

    def run_extract(*arguments: str, reply: Callable[[str], str] = city_of) -> tuple[int, str]:
        monkeypatch.setattr(Engine, "load", lambda name: make_engine(ScriptedModel(reply), kv_cache_tokens=16384))
        command = ["extract", str(folder / "schema.json"), "--output", str(folder / "out.jsonl"), *arguments]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        return result.exit_code, result.output if result.exception is None else f"{result.output}{result.exception}"

    return run_extract


def lines(folder: Path) -> dict[str, object]:
    read = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len({line["document"] for line in read}) == len(read)
    return {Path(line["document"]).name: line["value"]["city"] for line in read}


def test_every_document_becomes_a_line(run: Run, folder: Path) -> None:
    code, _ = run(str(folder))
    assert code == 0
    assert lines(folder) == {"a.txt": "Rome", "b.md": "Paris", "c.txt": "Lima"}


def test_what_was_done_before_is_not_done_again(run: Run, folder: Path) -> None:
    run(str(folder / "a.txt"))
    code, printed = run(str(folder), reply=lambda prompt: '{"city": "another"}')
    assert code == 0 and "1 documents were done before, 2 are left" in printed
    assert lines(folder) == {"a.txt": "Rome", "b.md": "another", "c.txt": "another"}


def test_a_line_that_was_cut_off_when_it_was_written_is_done_again(run: Run, folder: Path) -> None:
    run(str(folder))
    whole = (folder / "out.jsonl").read_text()
    (folder / "out.jsonl").write_text(whole[:-5])
    assert run(str(folder))[0] == 0
    assert set(lines(folder)) == {"a.txt", "b.md", "c.txt"}


def test_documents_that_cannot_be_read_are_told_and_skipped(run: Run, folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "long.txt").write_text("A letter " + "x" * 9000)
    code, printed = run(str(folder))
    assert code == 3 and "2 were skipped" in printed
    assert "latin.txt: 'utf-8' codec" in printed and "long.txt: prompt of" in printed
    assert set(lines(folder)) == {"a.txt", "b.md", "c.txt"}


def test_a_schema_that_no_grammar_enforces_is_refused_or_checked_as_it_is_asked_for(run: Run, folder: Path) -> None:
    odd = {"type": "object", "properties": {"city": {"type": "string", "not": {"pattern": "^(?=R)"}}}}
    (folder / "schema.json").write_text(json.dumps(odd | {"required": ["city"]}))
    code, printed = run(str(folder))
    assert code == 1 and "pattern" in printed
    code, printed = run(str(folder), "--no-strict")
    assert code == 3 and "1 were skipped" in printed  # the model says Rome at temperature 0 whatever is checked
    assert set(lines(folder)) == {"b.md", "c.txt"}


def test_nothing_to_read_and_an_output_of_others_are_told(run: Run, folder: Path) -> None:
    assert run(str(folder / "nothing.txt"))[0] == 2
    (folder / "empty").mkdir()
    assert run(str(folder / "empty"))[0] == 2
    (folder / "out.jsonl").write_text('{"another": "file"}\n')
    code, printed = run(str(folder))
    assert code == 2 and "did not write" in printed
    assert (folder / "out.jsonl").read_text() == '{"another": "file"}\n'


def test_an_output_that_is_no_file_is_told_before_anything_is_read(run: Run, folder: Path) -> None:
    for output, problem in (("/dev/full", "is no file"), (str(folder / "no" / "x.jsonl"), "is no folder")):
        code, printed = run(str(folder), "--output", output)
        assert code == 2 and problem in printed


def test_a_disk_that_fills_up_ends_all_with_its_own_error(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(document: Path, value: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlx_agent_llm.cli.extract.run.line_of", full)
    code, printed = run(str(folder))
    assert code == 1 and "[Errno 28] No space left on device" in printed, "and not a group of errors"
    assert "make room and call again" in printed and "out.jsonl" in printed


def test_the_rate_and_what_is_left_are_those_since_the_beginning() -> None:
    task = Task(TaskID(0), "documents", total=6, completed=2, _get_time=lambda: 4.0)
    task.start_time = 0.0
    assert _PaceColumn().render(task).plain == "0.50/s, 0:00:08 left"
    task.completed = 0
    assert _PaceColumn().render(task).plain == ""


SLOW = """
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.testing import ScriptedModel
model = ScriptedModel(lambda prompt: '{"city": "%s"}' % ("Rome" if "Rome" in prompt else "x" * 8000))
config = EngineConfig(kv_cache_tokens=16384, max_model_len=8192, check_model=False)
Engine.load = lambda name: Engine.from_parts(model, model.tokenizer, config)
from mlx_agent_llm.cli import main
main()
"""


@pytest.mark.long
def test_an_interrupted_run_keeps_what_was_written_and_says_nothing(folder: Path) -> None:
    (folder / "schema.json").write_text('{"properties": {"city": {"type": "string"}}, "required": ["city"]}')
    command = [sys.executable, "-c", SLOW, "extract", "schema.json", "a.txt", "b.md", "--max-tokens", "8000",
               "-o", "out.jsonl"]  # fmt: skip
    listen = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # where the tests run in the background it is ignored
    with subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True, preexec_fn=listen) as process:
        wait_until(lambda: (folder / "out.jsonl").exists() and (folder / "out.jsonl").stat().st_size > 0, 100)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    assert lines(folder) == {"a.txt": "Rome"}


def test_json_tells_how_many_were_written_and_which_were_skipped(run: Run, folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    run(str(folder / "a.txt"))
    assert run(str(folder), "--json", str(folder / "report.json"))[0] == 3
    report = json.loads((folder / "report.json").read_text())
    assert (report["done_before"], report["written"], list(report["skipped"])) == (1, 2, [str(folder / "latin.txt")])


def test_the_demo_model_reads_documents_into_valid_json(
    demo: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "load", lambda name: Engine(demo))
    output = folder / "demo.jsonl"
    command = ["extract", str(folder / "schema.json"), str(folder), "-o", str(output), "--max-tokens", "24"]
    assert CliRunner().invoke(app, command).exit_code == 0
    for line in output.read_text().splitlines():
        jsonschema.validate(json.loads(line)["value"], SCHEMA)

"""The documentation: its programs and commands run, or say why not; its drawings and the dashboard are up to date."""

import ast
import configparser
import json
import plistlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import typer.main

from mlx_agent_llm import errors
from mlx_agent_llm.cli.app import app
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.metrics import exposition
from tests.support.doc_blocks import Workplace, blocks_of, transcript
from tests.support.engines import MakeEngine

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS = typer.main.get_group(app)
PROGRAMS = [page for page in PAGES if any(block.language == "python" and not block.is_included and block.why_not is None
                                          for block in blocks_of(page))]  # fmt: skip
SHELLS = [page for page in PAGES if any(block.language in ("sh", "console") and block.why_not is None
                                        for block in blocks_of(page))]  # fmt: skip
READERS = {"json": json.loads, "ini": configparser.RawConfigParser().read_string, "xml": lambda text: plistlib.loads(
    text.encode())}  # fmt: skip


def commands() -> Iterator[tuple[str, ...]]:
    for page in PAGES:
        yield from re.findall(r"^(?:\S+\| )?mlx-agent ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8"), re.M)
        yield from re.findall(r"`mlx-agent ([a-z]+)(?: ([a-z]+))?[^`]*`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_can_be_read(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python" and not block.is_included:
            compile(block.text, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        elif block.language in READERS:
            READERS[block.language](block.text)
        else:  # a drawing in characters has no language
            assert block.language in ("python", "sh", "console", ""), block


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[] if page.stem == "quickstart" else [pytest.mark.long])
     for page in PROGRAMS],
)  # fmt: skip
def test_the_program_of_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.language == "python" and block.why_not is None]
    printed = Workplace(tmp_path).run_program("\n".join(block.text for block in blocks if not block.is_included))
    assert "Logging error" not in printed, "logging tells of what its handlers raise, and goes on"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("page", SHELLS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    if page.stem == "disk_tier":  # its program writes what its commands look at
        place.run_program("\n".join(block.text for block in blocks_of(page) if block.language == "python"))
    for block in blocks_of(page):
        if block.language == "sh" and block.why_not is None:
            place.run_shell(block.text)
        elif block.language == "console" and block.why_not is None:
            for command, expected in transcript(block.text):
                printed = place.run_shell(command).splitlines()
                assert [line for line in printed if "━" not in line] == expected, command


def test_every_command_of_a_block_takes_its_options() -> None:
    form = re.compile(r"^(?:\$ )?(?:.*\| |\w+=\S+ )?(?:\.venv/bin/)?mlx-agent (.*)", re.M)
    shells = [block.text for page in PAGES for block in blocks_of(page) if block.language in ("sh", "console")]
    lines = [line for text in shells for line in form.findall(text)]
    assert len(lines) > 20
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        command = COMMANDS.commands[name]
        if name in ("kv", "models"):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        command.make_context(name, [text for text in arguments if text != "{chess,jazz,stars}.txt"])


def test_every_command_that_is_named_exists() -> None:
    named = set(commands())
    assert len(named) > 10
    for name, argument in named:
        assert name in COMMANDS.commands, f"mlx-agent {name}"
        if name in ("kv", "models") and argument:
            assert argument in COMMANDS.commands[name].commands, f"mlx-agent {name} {argument}"  # type: ignore[attr-defined]


def test_the_drawings_are_those_that_their_script_makes() -> None:
    spec = spec_from_file_location("drawings", DOCS / "drawings.py")
    assert spec is not None and spec.loader is not None
    drawings = module_from_spec(spec)
    spec.loader.exec_module(drawings)
    for name, draw in drawings.DRAWINGS.items():
        assert (DOCS / "img" / name).read_text(encoding="utf-8") == draw(), f"python docs/drawings.py makes {name} anew"


def test_the_dashboard_asks_for_metrics_that_there_are(make_engine: MakeEngine) -> None:
    engine: Engine = make_engine()
    there = exposition(engine).decode()
    dashboard = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
    asked = {name for panel in dashboard["panels"] for target in panel["targets"]
             for name in re.findall(r"(?:vllm|mlx_agent):\w+", target["expr"])}  # fmt: skip
    assert len(asked) > 12
    assert [name for name in asked if f"\n{name}{{" not in there] == []


def test_every_example_is_shown_and_every_page_is_in_the_menu() -> None:
    shown = re.findall(r'"(examples/.*\.py)"', (DOCS / "examples.md").read_text(encoding="utf-8"))
    assert sorted(shown) == [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").glob("[0-9]*.py"))]
    menu = re.findall(r"([a-z_]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(menu) == sorted(page.name for page in PAGES)


def test_every_error_of_the_troubleshooting_page_is_one_that_there_is() -> None:
    folders = [ROOT / "mlx_agent_llm", ROOT / "integrations"]
    source = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    table = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [row.partition("` |")[0] for row in re.findall(r"^\| `(\w+(?:Error|Warning).*)$", table, re.M)]
    assert len(messages) >= 10
    for message in messages:
        name, _, rest = message.partition(": ")
        assert hasattr(errors, name), message
        for words in re.findall(r"[a-z_]+(?: [a-z_]+)+", rest):  # between what differs from case to case
            assert words in source, message


@pytest.mark.long
def test_the_site_is_built_and_no_link_leads_nowhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "max_tokens" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")

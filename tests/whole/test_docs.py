"""The documentation: its Python compiles or runs, its commands exist, its drawings and the dashboard are up to date."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import typer.main

from mlx_agent_llm.cli.app import app
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.metrics import exposition
from tests.support.engines import MakeEngine

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WHOLE = ("index", "quickstart", "agents", "performance", "metrics")  # pages whose blocks are a program together
COMMANDS = typer.main.get_group(app)


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands() -> Iterator[tuple[str, ...]]:
    for page in PAGES:
        yield from re.findall(r"^(?:\S+\| )?mlx-agent ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8"), re.M)
        yield from re.findall(r"`mlx-agent ([a-z]+)(?: ([a-z]+))?[^`]*`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_python_can_be_read(page: Path) -> None:
    for block in python_blocks(page):
        if not block.startswith("--8<--"):
            compile(block, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    "name", [name if name == "quickstart" else pytest.param(name, marks=pytest.mark.long) for name in WHOLE]
)
def test_the_blocks_of_a_page_run_as_they_stand(name: str) -> None:
    blocks = python_blocks(DOCS / f"{name}.md")
    assert blocks
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.long
def test_the_site_is_built_and_no_link_leads_nowhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "max_tokens" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")

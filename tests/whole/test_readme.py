"""What the README says can be typed and run: its Python, its commands, its links."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from mlx_agent_llm.bench import WORKLOADS
from mlx_agent_llm.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_group(app)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def typed(command: str) -> list[list[str]]:
    """The arguments of every line in a shell block, and of every piece of inline code, that starts with a command."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", README)
    split = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{command} ")]
    return [words[1:] for words in split]


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    "code", [pytest.param(code, id=f"block{index}") for index, code in enumerate(blocks("python"))]
)
def test_a_python_block_runs_as_it_stands(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout, "an example shows something"


def test_the_readme_has_an_example_and_the_two_commands() -> None:
    assert blocks("python")
    assert typed("make")[:2] == [["demo"], ["test"]]


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test", "check", "bench", "venv", "clean"} <= targets
    for words in typed("make"):
        assert words[0] in targets, f"make {shlex.join(words)}"


def test_every_mlx_agent_command_that_is_named_exists_and_takes_its_options() -> None:
    assert typed("mlx-agent"), "the README shows the commands"
    for name, *arguments in typed("mlx-agent"):
        assert name in COMMANDS.commands, f"mlx-agent {name}"
        context = COMMANDS.commands[name].make_context(name, list(arguments))
        if name == "bench":
            assert context.params["name"] in (*WORKLOADS, "all")


def test_every_link_to_a_file_leads_to_one() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

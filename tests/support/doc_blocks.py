"""The blocks of code in the documentation, and folders where they run as they stand, on the demo model."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.embedders import demo_embedder_folder, write_tiny_cross_encoder

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
# Models of the hub, by those that stand in for them here.
_STAND_INS = {"mlx-community/Qwen3-4B-4bit": "demo", "Qwen/Qwen3-4B": "demo"}
_RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"
_CITY = "from pydantic import BaseModel, Field\n\nclass City(BaseModel):\n    name: str = Field(max_length=20)\n"
_EVENT = {"title": {"type": "string", "maxLength": 40},
          "month": {"enum": ["May", "June", "July", "August"]},
          "price": {"type": "integer", "minimum": 0, "maximum": 500}}  # fmt: skip
_TIME_SERVER = """
from mcp.server.fastmcp import FastMCP
server = FastMCP("time", log_level="ERROR")

@server.tool()
def get_current_time(timezone: str) -> str:
    return "12:00 in " + timezone

server.run()
"""
_RUNNER = """
import ast, asyncio, inspect, pathlib, sys
code = compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


class Block(NamedTuple):
    """A block of a page; why_not: the reason that stands above one that is not run."""

    language: str
    text: str
    why_not: str | None

    @property
    def is_included(self) -> bool:
        """Whether it is a file of examples/, which has tests of its own."""
        return self.text.startswith("--8<--")


def blocks_of(page: Path) -> list[Block]:
    """All of a page, in their order."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text, why_not or None) for why_not, language, text in found]


class Workplace:
    """A folder with the files that the blocks of a page speak of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "event.json").write_text(
            json.dumps(
                {"type": "object", "properties": _EVENT, "required": list(_EVENT), "additionalProperties": False}
            )
        )
        shutil.copy(folder / "event.json", folder / "schema.json")
        shutil.copytree(ROOT / "examples", folder / "examples")
        (folder / "letters").mkdir()
        for name in ("chess.txt", "jazz.txt"):
            shutil.copy(folder / "examples" / "documents" / name, folder / "letters" / name)
        (folder / "more.txt").write_text("The market is on the 3rd of May. It costs nothing.")
        (folder / "models.py").write_text(_CITY)
        (folder / "my_package").mkdir()
        (folder / "my_package" / "models.py").write_text(_CITY.replace("City", "Event"))
        (folder / "my_tools.py").write_text('def weather(city: str) -> str:\n    """Tell the weather in a city."""\n'
                                            '    return f"sunny in {city}"\n')  # fmt: skip
        (folder / "servers.json").write_text('{"mcpServers": {"time": {"command": "mcp-server-time"}}}')
        (folder / "bin").mkdir()
        (folder / "bin" / "mcp-server-time").write_text(f"#!{sys.executable}\n{_TIME_SERVER}")
        (folder / "bin" / "mcp-server-time").chmod(0o755)

    def run_program(self, text: str) -> str:
        """What a program prints; its blocks may await at their top."""
        file = self._folder / "program.py"
        file.write_text(self._here(text), encoding="utf-8")
        return self._run([sys.executable, "-c", _RUNNER, str(file)])

    def run_shell(self, text: str) -> str:
        """What the lines of a shell print; whoever asks at the terminal reads the end of the input."""
        if (self._folder / "kv").is_dir():  # a page's program wrote there what its commands look for in the cache
            shutil.copytree(self._folder / "kv", self._folder / "cache" / "mlx_agent_llm" / "kv")
        return self._run(["bash", "-e", "-c", self._here(text)])

    def _run(self, command: list[str]) -> str:
        end, terminal = pty.openpty()
        os.write(end, b"\x04" * 20)
        environment = os.environ | {
            "PATH": os.pathsep.join([str(self._folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(demo_embedder_folder().parents[1]), *filter(None, sys.path)]),
            "XDG_CACHE_HOME": str(self._folder / "cache"),
            "COLUMNS": "120",
        }
        try:
            done = subprocess.run(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=550, cwd=self._folder, env=environment)  # fmt: skip
        finally:
            os.close(end)
            os.close(terminal)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _here(self, text: str) -> str:
        if _RERANKER in text:
            write_tiny_cross_encoder(self._folder / "reranker", "bert")
        for name, stand_in in {**_STAND_INS, _RERANKER: str(self._folder / "reranker")}.items():
            text = text.replace(name, stand_in)
        return text


def transcript(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a transcript, each with the lines that it printed; not those of a progress bar."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, *printed = part.splitlines()
        yield command, [line for line in printed if "━" not in line]

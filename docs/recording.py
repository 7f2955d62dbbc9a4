"""The demo as a picture: `python docs/recording.py` runs it and writes docs/img/demo.svg."""

from __future__ import annotations

import asyncio
import io
import re
import time
from pathlib import Path

from rich.console import Console

from mlx_agent_llm import Engine
from mlx_agent_llm.cli.demo.agent import Agent
from mlx_agent_llm.cli.demo.panel import agent_tables, engine_table, live_view
from mlx_agent_llm.cli.demo.team import make_team, run_team

PICTURE = Path(__file__).parent / "img" / "demo.svg"
_AGENTS, _COLUMNS = 4, 120
_TOKENS_BEFORE_LOOKING = 130


async def record(team: list[Agent], engine: Engine, console: Console) -> None:
    """Run the agents, and print what the screen shows while they are in the middle of it."""
    running = asyncio.ensure_future(run_team(team, engine))
    while not running.done() and engine.stats().num_generated_tokens < _TOKENS_BEFORE_LOOKING:
        await asyncio.sleep(0.02)
    console.print(live_view(team, engine.stats()), "", sep="\n")
    await running


def draw() -> str:
    """One run as an SVG that asks for no font from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f"[bold]$ mlx-agent demo --agents {_AGENTS}[/bold]")
    with Engine.load("demo") as engine:
        team, began = make_team(_AGENTS, seed=0), time.perf_counter()
        asyncio.run(record(team, engine, console))
        console.print(agent_tables(team), engine_table(engine.stats(), time.perf_counter() - began), sep="\n")
    svg = console.export_svg(title="while they run, and at the end")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")

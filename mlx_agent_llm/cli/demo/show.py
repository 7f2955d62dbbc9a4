"""The demo: load one engine, run the agents on it, show them, write what happened."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.live import Live

from mlx_agent_llm.cli.demo.panel import agent_tables, engine_table, live_view
from mlx_agent_llm.cli.demo.team import make_team, report, run_team
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.engine import Engine


def show(num_agents: int, model: str, seed: int, json_file: Path | None) -> None:
    """Run that many agents at the same time; what they said and called stays on the screen."""
    console = console_beside(json_file)
    console.print(f"Loading {model} ...")
    with Engine.load(model) as engine:
        team = make_team(num_agents, seed)
        started = time.perf_counter()
        with Live(console=console, get_renderable=lambda: live_view(team, engine.stats())) as live:
            asyncio.run(run_team(team, engine))
            live.refresh()
        seconds = time.perf_counter() - started
        console.print("", agent_tables(team), engine_table(engine.stats(), seconds), sep="\n")
        write_json(json_file, report(team, engine, seconds))
    console.print(
        f"{sum(len(agent.tool_calls) for agent in team)} calls, each of them valid for its tool's schema: the grammar "
        "sees to that. Whether a call and an answer are right is up to the model; the demo model has 135M parameters."
    )

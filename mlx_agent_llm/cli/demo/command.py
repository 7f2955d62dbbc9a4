"""The command: load one engine, run the agents on it, show them, write what happened."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from mlx_agent_llm.cli.options import JSONFile, ModelName
from mlx_agent_llm.engine import Engine


def demo(
    agents: Annotated[int, typer.Option(min=1, help="Agents that run at the same time.")] = 4,
    model: ModelName = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other words.")] = 0,
    json_file: JSONFile = None,
) -> None:
    """Run agents with real tools at the same time on one engine, and show what they share."""
    # Here and not above: they need LangChain, which the other commands do without. The first one names the extra.
    import langchain_mlx_agent  # noqa: F401
    from mlx_agent_llm.cli.demo.panel import agent_tables, engine_table, live_view
    from mlx_agent_llm.cli.demo.team import make_team, report, run_team

    console = Console()
    console.print(f"Loading {model} ...")
    with Engine.load(model) as engine:
        team = make_team(agents, seed)
        started = time.perf_counter()
        with Live(console=console, get_renderable=lambda: live_view(team, engine.stats())) as live:
            asyncio.run(run_team(team, engine))
            live.refresh()
        seconds = time.perf_counter() - started
        console.print("", agent_tables(team), engine_table(engine.stats(), seconds), sep="\n")
        if json_file is not None:
            json_file.write_text(json.dumps(report(team, engine, seconds), indent=2), encoding="utf-8")
    console.print(
        f"{sum(len(agent.tool_calls) for agent in team)} calls, each of them valid for its tool's schema: the grammar "
        "sees to that. Whether a call and an answer are right is up to the model; the demo model has 135M parameters."
    )

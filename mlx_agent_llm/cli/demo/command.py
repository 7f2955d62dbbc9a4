"""The command: load one engine, run the agents on it, show them, write what happened."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain_mlx_agent import ChatMLXAgent
from rich.console import Console
from rich.live import Live

from mlx_agent_llm import Engine
from mlx_agent_llm.cli.demo.agent import MAX_TOKENS, Agent
from mlx_agent_llm.cli.demo.panel import agent_table, engine_table, live_view
from mlx_agent_llm.cli.demo.script import TASKS

TEMPERATURE = 0.2


def demo(
    agents: Annotated[int, typer.Option(min=1, help="Agents that run at the same time.")] = 4,
    model: Annotated[str, typer.Option(help='"demo", a hub id, a local directory or a .gguf file.')] = "demo",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Another seed, other words.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file, too.")] = None,
) -> None:
    """Run agents with real tools at the same time on one engine, and show what they share."""
    console = Console()
    console.print(f"Loading {model} ...")
    with Engine.load(model) as engine:
        team = [Agent(TASKS[index % len(TASKS)], seed * 1000 + index * 10) for index in range(agents)]
        started = time.perf_counter()
        asyncio.run(_run(team, engine, console))
        seconds = time.perf_counter() - started
        console.print(agent_table(team), engine_table(engine.stats(), seconds))
        console.print(
            f"{sum(len(agent.tool_calls) for agent in team)} calls, every one valid for its tool's schema: the grammar sees "
            f"to that. Whether call and answer are the right ones is up to the model; the demo's has 135M parameters."
        )
        if json_file is not None:
            json_file.write_text(json.dumps(_report(team, engine, seconds), indent=2), encoding="utf-8")


async def _run(team: list[Agent], engine: Engine, console: Console) -> None:
    chat = ChatMLXAgent(engine=engine, temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    with Live(console=console, get_renderable=lambda: live_view(team, engine.stats()), refresh_per_second=4) as live:
        await asyncio.gather(*(agent.run(chat) for agent in team))
        live.refresh()


def _report(team: list[Agent], engine: Engine, seconds: float) -> dict[str, Any]:
    return {
        "model": engine.model_name,
        "seconds": seconds,
        "agents": [agent.as_dict() for agent in team],
        "engine": asdict(engine.stats()),
    }

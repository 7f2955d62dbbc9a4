"""The demo's agents together on one engine; knows no console."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine
from mlx_agent_llm.cli.demo.agent import MAX_TOKENS, Agent
from mlx_agent_llm.cli.demo.script import TASKS

TEMPERATURE = 0.1  # at 0.2 one answer in a hundred is wrong


def make_team(size: int, seed: int) -> list[Agent]:
    """Agents with a task and a seed each."""
    seeds = random.Random(seed)
    return [Agent(TASKS[index % len(TASKS)], seeds.randrange(2**31)) for index in range(size)]


async def run_team(team: Sequence[Agent], engine: Engine) -> None:
    """Run all agents at the same time."""
    chat = ChatMLXAgent(engine=engine, temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    await asyncio.gather(*(agent.run(chat) for agent in team))


def report(team: Sequence[Agent], engine: Engine, seconds: float) -> dict[str, Any]:
    """What happened, for --json."""
    return {
        "model": engine.model_name,
        "seconds": seconds,
        "agents": [agent.as_dict() for agent in team],
        "engine": asdict(engine.stats()),
    }

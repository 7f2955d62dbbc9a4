"""Twelve LangChain agents with one system prompt and tool list on one engine: at once, and one after the other."""

import asyncio
import time
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine

RULES = "\n".join(f"The ferry to island {number} costs {number % 5 + 3} dollars." for number in range(1, 31))
SYSTEM = f"You sell ferry tickets. Be brief, and look up with your tool when a ferry leaves.\n{RULES}"


def departure(island: int) -> str:
    """Tell when the ferry to an island leaves."""
    return f"at {7 + island % 12} o'clock"


async def ask(agent: Any, island: int) -> str:
    state = await agent.ainvoke({"messages": [("human", f"When is the ferry to island {island}?")]})
    return str(state["messages"][-1].text)


async def main(engine: Engine) -> None:
    chat = ChatMLXAgent(engine=engine, temperature=0, max_tokens=24)
    limit = ModelCallLimitMiddleware(run_limit=2)  # a small model may want to look up forever
    agents = [create_agent(chat, [departure], system_prompt=SYSTEM, middleware=[limit]) for _ in range(12)]
    began = time.perf_counter()
    await asyncio.gather(*(ask(agent, island) for island, agent in enumerate(agents, start=1)))
    at_once, stats = time.perf_counter() - began, engine.stats()
    print(f"at once: {at_once:.1f} s, largest batch: {stats.max_batch_size} rows")
    print(f"prefix hit rate: {stats.prefix_hit_rate:.0%}, blocks shared at the most: {stats.peak_shared_blocks}")
    engine.reset_prefix_cache()
    began = time.perf_counter()
    _ = [await ask(agent, island) for island, agent in enumerate(agents, start=1)]
    in_turn = time.perf_counter() - began
    print(f"one after the other: {in_turn:.1f} s, {in_turn / at_once:.1f} times as long")


if __name__ == "__main__":
    with Engine.load("demo") as engine:
        asyncio.run(main(engine))

"""The command: how many agents, on which model."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile, ModelName


def demo(
    agents: Annotated[int, typer.Option(min=1, help="Agents that run at the same time.")] = 4,
    model: ModelName = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other words.")] = 0,
    json_file: JSONFile = None,
) -> None:
    """Run agents with real tools at the same time on one engine, and show what they share."""
    import langchain_mlx_agent  # noqa: F401  which names the extra where LangChain is missing
    from mlx_agent_llm.cli.demo.show import show

    show(agents, model, seed, json_file)

"""mlx-agent demo: LangChain agents that run at the same time on one engine."""

from mlx_agent_llm.cli.demo.command import demo

__all__ = ["demo"]

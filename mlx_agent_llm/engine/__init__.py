"""The engine as callers meet it: the face, its handles, and the thread after them."""

from mlx_agent_llm.engine.engine import Engine, Prompt

__all__ = ["Engine", "Prompt"]

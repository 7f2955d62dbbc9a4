"""The engine as callers meet it: the face, its handles, and the thread after them."""

from mlx_agent_llm.engine.engine import Engine
from mlx_agent_llm.engine.prompt import Prompt

__all__ = ["Engine", "Prompt"]

"""What the output must be, and the matchers that keep it so."""

from mlx_agent_llm.request.constraints import Choice, Constraint, Grammar, JSONSchema, Regex

__all__ = ["Choice", "Constraint", "Grammar", "JSONSchema", "Regex"]

"""What the output must be, and the matchers that keep it so."""

from mlx_agent_llm.constrain.spec import Constraint, JSONSchema, StructuralTag

__all__ = ["Constraint", "JSONSchema", "StructuralTag"]

"""Context-free grammars whose leaves are texts and regular languages, and what is computed of them alone."""

from mlx_agent_llm.constrain.context_free.nodes import (
    Choice,
    ContextFreeGrammar,
    Node,
    Pattern,
    Repeat,
    Rule,
    Sequence,
    Text,
)

__all__ = ["Choice", "ContextFreeGrammar", "Node", "Pattern", "Repeat", "Rule", "Sequence", "Text"]

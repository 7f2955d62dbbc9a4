"""Context-free grammars whose leaves are texts and regular languages, and what is computed of them alone."""

from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)

__all__ = [
    "ChoiceNode",
    "ContextFreeGrammar",
    "Node",
    "PatternNode",
    "RepeatNode",
    "RuleNode",
    "SequenceNode",
    "TextNode",
]

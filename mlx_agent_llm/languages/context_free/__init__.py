"""Context-free grammars whose leaves are texts and regular languages, and what is computed of them alone."""

from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    ContextFreeGrammar,
    DistinctNode,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
    choice,
    has_distinct,
    leaf,
    leaves,
    rule_names,
    sequence,
)
from mlx_agent_llm.languages.context_free.productive import productive_rules, reachable_rules

__all__ = [
    "ChoiceNode",
    "ContextFreeGrammar",
    "DistinctNode",
    "Node",
    "PatternNode",
    "RepeatNode",
    "RuleNode",
    "SequenceNode",
    "TextNode",
    "choice",
    "has_distinct",
    "leaf",
    "leaves",
    "productive_rules",
    "reachable_rules",
    "rule_names",
    "sequence",
]

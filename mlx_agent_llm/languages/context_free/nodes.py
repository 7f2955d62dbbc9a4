"""Context-free grammars as data: what every constraint becomes, and what both backends and the closing read.

Leaves are texts and regular languages over Unicode characters. In a recursive grammar a leaf should be self-delimiting
where it stands: no text that it matches, with a beginning of what may follow, is the beginning of a longer match. Then
a lexer that always takes the longest match reads the same language as a parser without one (backends/lexing.py finds
out).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mlx_agent_llm.languages.regular import Language, Literal


@dataclass(frozen=True)
class TextNode:
    """Exactly this text."""

    value: str


@dataclass(frozen=True)
class PatternNode:
    """Any text of a regular language."""

    language: Language


@dataclass(frozen=True)
class DistinctNode(PatternNode):
    """A text of a regular language that no other DistinctNode of its series had before.

    Series do not lie within each other. What reads grammars without counting texts takes it for a PatternNode, which
    holds more. before: what every text of the language begins with and what does not count; a node without it begins a
    series. ends: the characters that a text of the language may end with.
    """

    before: str
    ends: frozenset[str]


@dataclass(frozen=True)
class SequenceNode:
    """All parts, one after the other; none is the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class ChoiceNode:
    """One of the options, of which there is at least one."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class RepeatNode:
    """`least` to `most` times the item; most=None is without end."""

    item: Node
    least: int
    most: int | None


@dataclass(frozen=True)
class RuleNode:
    """Whatever the rule of this name matches, which may refer to itself."""

    name: str


Node = TextNode | PatternNode | SequenceNode | ChoiceNode | RepeatNode | RuleNode


@dataclass(frozen=True)
class ContextFreeGrammar:
    """Rules by name and the node that the whole text must match.

    markers: texts of control tokens which the grammar writes. Where the vocabulary has such a token the model may use
    it; every other control token stays forbidden.
    """

    root: Node
    rules: Mapping[str, Node] = field(default_factory=dict)
    markers: frozenset[str] = frozenset()


def sequence(*nodes: Node) -> Node:
    """Nodes one after the other, neighbouring texts joined."""
    parts: list[Node] = []
    for node in nodes:
        for part in node.parts if isinstance(node, SequenceNode) else (node,):
            if not isinstance(part, TextNode):
                parts.append(part)
            elif parts and isinstance(last := parts[-1], TextNode):
                parts[-1] = TextNode(last.value + part.value)
            elif part.value:
                parts.append(part)
    return parts[0] if len(parts) == 1 else SequenceNode(tuple(parts))


def leaf(language: Language) -> Node:
    """The node of a language."""
    return TextNode(language.text) if isinstance(language, Literal) else PatternNode(language)


def choice(options: Iterable[Node]) -> Node:
    """One of the options, each once; with none it matches nothing, and `productive_rules` takes it out."""
    different = tuple(dict.fromkeys(options))
    return different[0] if len(different) == 1 else ChoiceNode(different)


def nodes_within(*nodes: Node) -> Iterator[Node]:
    """The nodes and all that they are made of, each as often as it is there."""
    left = [*nodes]
    while left:
        yield (node := left.pop())
        match node:
            case SequenceNode(parts) | ChoiceNode(parts):
                left += parts
            case RepeatNode(item):
                left.append(item)


def rule_names(node: Node) -> Iterator[str]:
    """The rules that a node names, each as often as it does."""
    return (one.name for one in nodes_within(node) if isinstance(one, RuleNode))


def leaves(grammar: ContextFreeGrammar) -> Iterator[TextNode | PatternNode]:
    """The leaves of the root and of all rules, each as often as it is there."""
    within = nodes_within(grammar.root, *grammar.rules.values())
    return (one for one in within if isinstance(one, TextNode | PatternNode))


def has_distinct(grammar: ContextFreeGrammar) -> bool:
    """Whether a grammar has DistinctNodes, so that it holds less than its patterns say."""
    return any(isinstance(leaf, DistinctNode) for leaf in leaves(grammar))

"""A grammar without the rules and options that no finite text matches, and without rules that nobody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
    choice,
    nodes_within,
    rule_names,
    sequence,
)


def productive_rules(rules: dict[str, Node]) -> dict[str, Node]:
    """The rules that some finite text matches, without the options that no text matches."""
    found = productive_names(rules)
    if len(found) == len(rules) and not any(map(_is_empty, nodes_within(*rules.values()))):
        return rules
    return {name: _trimmed(node, found) for name, node in rules.items() if name in found}


def productive_names(rules: Mapping[str, Node]) -> set[str]:
    """The names of the rules that some finite text matches."""
    found: set[str] = set()
    size = -1
    while size < len(found) < len(rules):  # rules mostly use later ones: from the last to the first a few rounds do
        size = len(found)
        for name in [*rules][::-1]:
            if name not in found and is_productive(rules[name], found):
                found.add(name)
    return found


def is_productive(node: Node, found: set[str]) -> bool:
    """Whether some finite text matches a node, given the names of the rules of which that is so."""
    match node:
        case PatternNode():
            return not node.language.is_empty()
        case SequenceNode():
            return all(is_productive(part, found) for part in node.parts)
        case ChoiceNode():
            return any(is_productive(option, found) for option in node.options)
        case RepeatNode():
            return node.least == 0 or is_productive(node.item, found)
        case RuleNode():
            return node.name in found
    return True


def reachable_rules(root: Node, rules: Mapping[str, Node]) -> dict[str, Node]:
    """The rules that a node needs, in their order."""
    found: set[str] = set()
    left = list(rule_names(root))
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += rule_names(rules[name])
    return {name: node for name, node in rules.items() if name in found}


def _is_empty(node: Node) -> bool:
    """Whether no text matches a node, by itself and not by its parts."""
    match node:
        case PatternNode(language):
            return language.is_empty()
        case ChoiceNode(options):
            return not options
    return False


def _trimmed(node: Node, found: set[str]) -> Node:
    match node:
        case SequenceNode():
            return sequence(*(_trimmed(part, found) for part in node.parts))
        case ChoiceNode():
            return choice(_trimmed(option, found) for option in node.options if is_productive(option, found))
        case RepeatNode():
            is_possible = is_productive(node.item, found)
            return replace(node, item=_trimmed(node.item, found)) if is_possible else TextNode("")
    return node

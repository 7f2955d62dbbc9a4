"""A grammar whose texts are as long as they can be: a lexer tells a long text from its neighbours more often."""

from __future__ import annotations

from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)

MAX_OPTIONS = 1000


def joined(grammar: ContextFreeGrammar) -> ContextFreeGrammar:
    """An equal grammar: `"[" call`, where every call begins with a text, has calls that begin with `"[..."`."""
    rules = {name: _join(body, grammar) for name, body in grammar.rules.items()}
    return ContextFreeGrammar(_join(grammar.root, grammar), rules, grammar.markers)


def _join(node: Node, grammar: ContextFreeGrammar) -> Node:
    match node:
        case SequenceNode(parts):
            return _join_sequence([_join(part, grammar) for part in parts], grammar)
        case ChoiceNode(options):
            return ChoiceNode(tuple(_join(option, grammar) for option in options))
        case RepeatNode(item, least, most):
            return RepeatNode(_join(item, grammar), least, most)
    return node


def _join_sequence(parts: list[Node], grammar: ContextFreeGrammar) -> Node:
    result: list[Node] = []
    for part in parts:
        before = result[-1] if result else None
        options = _options(part, grammar) if isinstance(before, TextNode) else None
        if isinstance(before, TextNode) and options is not None:
            after = [_put_before(before.value, option) for option in options]
            result[-1] = after[0] if len(after) == 1 else ChoiceNode(tuple(after))
        else:
            result.append(part)
    return result[0] if len(result) == 1 else SequenceNode(tuple(result))


def _options(node: Node, grammar: ContextFreeGrammar) -> list[Node] | None:
    """What the node is a choice of, if each option begins with a text."""
    found: list[Node] = []
    seen: set[str] = set()
    left = [node]
    while left:
        match left.pop():
            case RuleNode(name) if name not in seen:
                seen.add(name)
                left.append(grammar.rules[name])
            case ChoiceNode(options):
                left += options
            case TextNode() | SequenceNode((TextNode(), *_)) as option if len(found) < MAX_OPTIONS:
                found.append(option)
            case _:
                return None
    return found


def _put_before(text: str, option: Node) -> Node:
    match option:
        case TextNode(value):
            return TextNode(text + value)
        case SequenceNode((TextNode(value), *rest)):
            return SequenceNode((TextNode(text + value), *rest))
    raise AssertionError("every option begins with a text")

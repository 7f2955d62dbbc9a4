"""An equal grammar in the form that the backends read best.

Options that nothing matches are gone, so that every beginning has an end. A choice among leaves is one leaf, and so is
a repetition of one. A rule that only goes on with itself is a repetition, `a* b` for `r ::= a r | b` (Arden 1961):
recursion costs both libraries more.
"""

from __future__ import annotations

from typing import TypeGuard

from mlx_agent_llm.errors import ConstraintError
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
from mlx_agent_llm.languages.context_free.productive import is_productive, productive_names
from mlx_agent_llm.languages.regular import Language, literal, repeat, union


def reduced(grammar: ContextFreeGrammar) -> ContextFreeGrammar:
    """The grammar in that form; ConstraintError for one without any text."""
    found = productive_names(grammar.rules)
    if not is_productive(grammar.root, found):
        raise ConstraintError("nothing can satisfy the constraint: its grammar has no finite text")
    rules = {
        name: _without_tail_recursion(name, _reduce(body, found))
        for name, body in grammar.rules.items()
        if name in found
    }
    return ContextFreeGrammar(_reduce(grammar.root, found), rules, grammar.markers)


def _reduce(node: Node, found: set[str]) -> Node:
    match node:
        case TextNode() | PatternNode() | RuleNode():
            return node
        case SequenceNode(parts):
            return SequenceNode(tuple(_reduce(part, found) for part in parts))
        case RepeatNode(item, least, most):
            is_empty = most == 0 or not is_productive(item, found)
            return SequenceNode(()) if is_empty else _repeat(_reduce(item, found), least, most)
        case ChoiceNode(options):
            return _choice([_reduce(option, found) for option in options if is_productive(option, found)])


def _choice(options: list[Node]) -> Node:
    leaves = [option for option in options if isinstance(option, TextNode | PatternNode)]
    if len(leaves) > 1:
        others = [option for option in options if not isinstance(option, TextNode | PatternNode)]
        options = [PatternNode(union(*map(_language, leaves))), *others]
    return options[0] if len(options) == 1 else ChoiceNode(tuple(options))


def _repeat(item: Node, least: int, most: int | None) -> Node:
    if isinstance(item, TextNode | PatternNode):
        return PatternNode(repeat(_language(item), least, most))
    return RepeatNode(item, least, most)


def _without_tail_recursion(name: str, body: Node) -> Node:
    options = body.options if isinstance(body, ChoiceNode) else (body,)
    repeated: list[Node] = [SequenceNode(option.parts[:-1]) for option in options if _ends_with(option, name)]
    if not repeated:
        return body
    last = [option for option in options if not _ends_with(option, name)]
    return SequenceNode((RepeatNode(_choice(repeated), 0, None), _choice(last)))


def _ends_with(node: Node, name: str) -> TypeGuard[SequenceNode]:
    return isinstance(node, SequenceNode) and node.parts[-1:] == (RuleNode(name),)


def _language(leaf: TextNode | PatternNode) -> Language:
    return literal(leaf.value) if isinstance(leaf, TextNode) else leaf.language

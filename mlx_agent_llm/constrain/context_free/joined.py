"""A grammar whose texts are as long as they can be: a lexer tells a long text from its neighbours more often."""

from __future__ import annotations

from mlx_agent_llm.constrain.context_free.nodes import Choice, ContextFreeGrammar, Node, Repeat, Rule, Sequence, Text

MAX_OPTIONS = 1000


def joined(grammar: ContextFreeGrammar) -> ContextFreeGrammar:
    """Return an equal grammar: `"[" call`, where every call begins with a text, has calls that begin with `"[..."`."""
    rules = {name: _join(body, grammar) for name, body in grammar.rules.items()}
    return ContextFreeGrammar(_join(grammar.root, grammar), rules, grammar.markers)


def _join(node: Node, grammar: ContextFreeGrammar) -> Node:
    match node:
        case Sequence(parts):
            return _join_sequence([_join(part, grammar) for part in parts], grammar)
        case Choice(options):
            return Choice(tuple(_join(option, grammar) for option in options))
        case Repeat(item, least, most):
            return Repeat(_join(item, grammar), least, most)
    return node


def _join_sequence(parts: list[Node], grammar: ContextFreeGrammar) -> Node:
    result: list[Node] = []
    for part in parts:
        before = result[-1] if result else None
        options = _options(part, grammar) if isinstance(before, Text) else None
        if isinstance(before, Text) and options is not None:
            behind = [_put_before(before.value, option) for option in options]
            result[-1] = behind[0] if len(behind) == 1 else Choice(tuple(behind))
        else:
            result.append(part)
    return result[0] if len(result) == 1 else Sequence(tuple(result))


def _options(node: Node, grammar: ContextFreeGrammar) -> list[Node] | None:
    """Return what the node is a choice of, if each option begins with a text."""
    found: list[Node] = []
    seen: set[str] = set()
    left = [node]
    while left:
        match left.pop():
            case Rule(name) if name not in seen:
                seen.add(name)
                left.append(grammar.rules[name])
            case Choice(options):
                left += options
            case Text() | Sequence((Text(), *_)) as option if len(found) < MAX_OPTIONS:
                found.append(option)
            case _:
                return None
    return found


def _put_before(text: str, option: Node) -> Node:
    match option:
        case Text(value):
            return Text(text + value)
        case Sequence((Text(value), *rest)):
            return Sequence((Text(text + value), *rest))
    raise AssertionError("every option begins with a text")

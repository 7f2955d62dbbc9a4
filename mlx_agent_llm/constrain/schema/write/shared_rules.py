"""The rules that all schemas have in common: free values of each type."""

from __future__ import annotations

from mlx_agent_llm.constrain.schema.write.notation import JSONNotation
from mlx_agent_llm.languages.context_free import ChoiceNode, Node, PatternNode, TextNode, sequence
from mlx_agent_llm.languages.numbers.languages import INTEGER, NUMBER


def shared_rules(notation: JSONNotation) -> dict[str, Node]:
    """The rules that all schemas in a notation share: free values of each type, under their own names."""
    anything, close, separator = notation.rule("any"), notation.close, notation.separator
    member = sequence(notation.any_name(), notation.colon, anything)
    kinds = ("string", "number", "boolean", "null", "any_array", "any_object")
    items, members = notation.rule("any_items"), notation.rule("any_members")
    rules: dict[str, Node] = {
        "string": PatternNode(notation.all_strings),
        "integer": PatternNode(INTEGER),
        "number": PatternNode(NUMBER),
        "boolean": ChoiceNode((notation.constant(True), notation.constant(False))),
        "null": notation.constant(None),
        "any": ChoiceNode(tuple(map(notation.rule, kinds))),
        "any_array": sequence(TextNode("["), ChoiceNode((TextNode("]"), sequence(anything, items)))),
        "any_items": ChoiceNode((TextNode("]"), sequence(separator, anything, items))),
        "any_object": sequence(notation.open, ChoiceNode((close, sequence(member, members)))),
        "any_members": ChoiceNode((close, sequence(separator, member, members))),
    }
    return {notation.shared + name: node for name, node in rules.items()}

"""How the leaves of values are written; JSON's notation, of which others may differ in what they override."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_agent_llm.constrain.schema.values.json_text import write_json
from mlx_agent_llm.constrain.schema.values.number_type import ANY_INTEGER, ANY_NUMBER, NumberType
from mlx_agent_llm.constrain.schema.write.number_text import language_of_numbers
from mlx_agent_llm.constrain.schema.write.string_text import FREE_STRING, quoted
from mlx_agent_llm.languages.context_free import Node, PatternNode, RuleNode, TextNode, leaf
from mlx_agent_llm.languages.regular import ANY_TEXT, Language
from mlx_agent_llm.request.constraints import SEPARATORS


class JSONNotation:
    """Leaves as JSON text, and what stands around members and items."""

    all_strings: Language = FREE_STRING
    shared = ""  # begins the names of the rules that all schemas in this notation share
    open, close, separator, colon = TextNode("{"), TextNode("}"), *map(TextNode, SEPARATORS)

    def __init__(self, separators: tuple[str, str] = SEPARATORS) -> None:
        if separators != SEPARATORS:
            self.separator, self.colon = map(TextNode, separators)
            self.shared = f"{self.shared}{'|'.join(separators)}|"

    def rule(self, name: str) -> RuleNode:
        """A rule that all schemas in this notation share."""
        return RuleNode(self.shared + name)

    def constant(self, value: bool | int | float | None) -> Node:
        """The node of one value that is no string, array or object."""
        return TextNode(write_json(value))

    def string(self, language: Language) -> Node:
        """The node of the strings of a language."""
        return self.rule("string") if language is ANY_TEXT else leaf(quoted(language))

    def numbers(self, parts: tuple[NumberType, ...]) -> Node:
        """The node of the numbers of any part; raises InexactNumberError."""
        if ANY_NUMBER in parts:
            return self.rule("number")
        if parts == (ANY_INTEGER,):
            return self.rule("integer")
        return leaf(language_of_numbers(parts))

    def order(self, names: Iterable[str]) -> list[str]:
        """The names of declared properties in the order in which they are written."""
        return list(names)

    def name(self, name: str) -> Node:
        """The node of one name of a property."""
        return TextNode(write_json(name))

    def names(self, language: Language) -> Node:
        """The node of the names of a language, each written in one form."""
        return PatternNode(quoted(language))

    def any_name(self) -> Node:
        """The node of all names, where it does not matter that some have several forms."""
        return self.rule("string")


JSON = JSONNotation()

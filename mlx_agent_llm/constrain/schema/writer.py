"""Canonical types as a context-free grammar: every text of it is one value, written in one form."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from mlx_agent_llm.constrain.schema.array_type import ANY_ARRAY, ArrayType
from mlx_agent_llm.constrain.schema.array_writer import write_array
from mlx_agent_llm.constrain.schema.formula import Formula
from mlx_agent_llm.constrain.schema.nodes import choice, sequence
from mlx_agent_llm.constrain.schema.notation import JSON, JSONNotation
from mlx_agent_llm.constrain.schema.number_text import InexactNumberError
from mlx_agent_llm.constrain.schema.number_type import NumberType
from mlx_agent_llm.constrain.schema.object_type import ANY_OBJECT, ObjectType
from mlx_agent_llm.constrain.schema.object_writer import write_object
from mlx_agent_llm.constrain.schema.reader import SchemaReader
from mlx_agent_llm.constrain.schema.types import EVERY_TYPE
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import ChoiceNode, Node, PatternNode, RuleNode, TextNode
from mlx_agent_llm.languages.numbers.languages import INTEGER, NUMBER
from mlx_agent_llm.languages.regular import nothing

MAX_RULES = 10_000


def shared_rules(notation: JSONNotation) -> dict[str, Node]:
    """Return the rules that all schemas in a notation share: free values of each type, under their own names."""
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


class GrammarWriter:
    """Writes formulas of one schema as nodes; what they need goes into `rules`, besides the shared rules.

    prefix: begins the names of the rules, so that the rules of several schemas can stand in one grammar.
    closes_objects: whether objects with declared properties hold no others where the schema is silent about them.
    """

    def __init__(
        self, reader: SchemaReader, notation: JSONNotation = JSON, prefix: str = "", closes_objects: bool = True
    ) -> None:
        self.reader = reader
        self.notation = notation
        self.closes_objects = closes_objects
        self.rules: dict[str, Node] = {}
        self._prefix = prefix
        self._names: dict[ArrayType | ObjectType, str] = {}
        self._open: deque[tuple[str, Callable[[], Node]]] = deque()

    def write(self, formula: Formula) -> Node:
        """Return the node of a formula, with all its rules written."""
        node = self.notation.whole(self, formula)
        while self._open:
            name, body = self._open.popleft()
            self.rules[name] = body()
        return node

    def value(self, formula: Formula) -> Node:
        """Return the node of a formula; rules for what lies inside are written later."""
        if self.reader.types(formula) == EVERY_TYPE:
            return self.notation.rule("any")
        return choice(self._options(formula))

    def array(self, arrays: ArrayType) -> Node:
        """Return the rule of an array type."""
        if arrays == ANY_ARRAY:
            return self.notation.rule("any_array")
        return self._later("array", arrays, lambda: write_array(self, arrays))

    def object(self, objects: ObjectType) -> Node:
        """Return the rule of an object type."""
        if objects == ANY_OBJECT:
            return self.notation.rule("any_object")
        return self._later("object", objects, lambda: write_object(self, objects))

    def rule(self, kind: str, body: Node) -> RuleNode:
        """Return a new rule with this body."""
        name = self.new_rule(kind)
        self.rules[name] = body
        return RuleNode(name)

    def new_rule(self, kind: str) -> str:
        """Return the name of a new rule, whose body is still to be set."""
        if len(self.rules) >= MAX_RULES:
            raise ConstraintError(f"schema is too large: its grammar needs more than {MAX_RULES} rules")
        name = f"{self._prefix}{kind}_{len(self.rules)}"
        self.rules[name] = ChoiceNode(())
        return name

    def _options(self, formula: Formula) -> Iterator[Node]:
        types = self.reader.types(formula)
        if types.null:
            yield self.notation.constant(None)
        if len(types.booleans) == 2:
            yield self.notation.rule("boolean")
        else:
            yield from map(self.notation.constant, types.booleans)
        if types.numbers:
            yield self._numbers(types.numbers)
        if types.strings is not nothing():
            yield self.notation.string(types.strings)
        yield from map(self.array, types.arrays)
        yield from map(self.object, types.objects)

    def _numbers(self, parts: tuple[NumberType, ...]) -> Node:
        try:
            return self.notation.numbers(parts)
        except InexactNumberError as error:
            self.reader.refuse(error.place, error.keyword, error.reason)
            return self.notation.rule("number")

    def _later(self, kind: str, part: ArrayType | ObjectType, body: Callable[[], Node]) -> RuleNode:
        if part not in self._names:
            self._names[part] = self.new_rule(kind)
            self._open.append((self._names[part], body))
        return RuleNode(self._names[part])

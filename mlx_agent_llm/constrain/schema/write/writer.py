"""Canonical types as a context-free grammar: every text of it is one value, written in one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.array_type import ANY_ARRAY, ArrayType
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.values.number_type import NumberType
from mlx_agent_llm.constrain.schema.values.object_type import ANY_OBJECT, ObjectType
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE
from mlx_agent_llm.constrain.schema.write.array_writer import write_array
from mlx_agent_llm.constrain.schema.write.notation import JSONNotation
from mlx_agent_llm.constrain.schema.write.number_text import InexactNumberError
from mlx_agent_llm.constrain.schema.write.object_writer import write_object
from mlx_agent_llm.constrain.schema.write.rule_book import RuleBook
from mlx_agent_llm.constrain.schema.write.value_writer import ValueWriter
from mlx_agent_llm.languages.context_free import Node, choice
from mlx_agent_llm.languages.regular import nothing

WriteRoot = Callable[[ValueWriter, Formula], Node]


def write_value(writer: ValueWriter, formula: Formula) -> Node:
    """The node of an outermost value that is written like any other."""
    return writer.value(formula)


class GrammarWriter:
    """Writes formulas of one schema as nodes; what they need goes into `rules`, besides the shared rules.

    prefix: begins the names of the rules. closes_objects: as ValueWriter has it.
    """

    def __init__(self, reader: SchemaReader, notation: JSONNotation, prefix: str, closes_objects: bool) -> None:
        self._reader = reader
        self._notation = notation
        self._book = RuleBook(prefix)
        self._nodes: dict[Formula, Node] = {}
        self._inner = ValueWriter(reader, notation, self._book, self.value, closes_objects)

    @property
    def rules(self) -> dict[str, Node]:
        """The rules that were written, by name."""
        return self._book.rules

    def write(self, formula: Formula, write_root: WriteRoot) -> Node:
        """The node of a formula, with all its rules written."""
        node = write_root(self._inner, formula)
        self._book.finish()
        return node

    def value(self, formula: Formula) -> Node:
        """The node of a formula; rules for what lies inside are written later."""
        if formula not in self._nodes:
            is_any = self._reader.types(formula) == EVERY_TYPE
            self._nodes[formula] = self._notation.rule("any") if is_any else choice(self._options(formula))
        return self._nodes[formula]

    def _options(self, formula: Formula) -> Iterator[Node]:
        types = self._reader.types(formula)
        if types.null:
            yield self._notation.constant(None)
        if len(types.booleans) == 2:
            yield self._notation.rule("boolean")
        else:
            yield from map(self._notation.constant, types.booleans)
        if types.numbers:
            yield self._numbers(types.numbers)
        if types.strings is not nothing():
            yield self._notation.string(types.strings)
        yield from map(self._array, types.arrays)
        yield from map(self._object, types.objects)

    def _numbers(self, parts: tuple[NumberType, ...]) -> Node:
        try:
            return self._notation.numbers(parts)
        except InexactNumberError as error:
            self._reader.refuse(error.pointer, error.keyword, error.reason)
            return self._notation.rule("number")

    def _array(self, arrays: ArrayType) -> Node:
        if arrays == ANY_ARRAY:
            return self._notation.rule("any_array")
        return self._book.later("array", arrays, lambda: write_array(self._inner, arrays))

    def _object(self, objects: ObjectType) -> Node:
        if objects == ANY_OBJECT:
            return self._notation.rule("any_object")
        return self._book.later("object", objects, lambda: write_object(self._inner, objects))

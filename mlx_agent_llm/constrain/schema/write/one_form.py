"""Values that each have one text, as regular languages: where texts differ, so do the values.

Objects have their declared properties alone, which stand in one order. Integers are written as everywhere; other
numbers without exponents and without zeros at their end, in 15 digits, so that doubles tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.values.json_text import write_json
from mlx_agent_llm.constrain.schema.values.number_type import NumberType
from mlx_agent_llm.constrain.schema.values.object_type import ObjectType
from mlx_agent_llm.constrain.schema.write.notation import JSONNotation
from mlx_agent_llm.constrain.schema.write.number_text import InexactNumberError, language_of_numbers
from mlx_agent_llm.constrain.schema.write.string_text import quoted
from mlx_agent_llm.languages.regex import parse_regex
from mlx_agent_llm.languages.regular import (
    EMPTY_TEXT,
    NOTHING,
    Language,
    are_disjoint,
    complement,
    concat,
    intersection,
    literal,
    repeat,
    union,
)

Texts = tuple[Language, frozenset[str]]
MAX_DEPTH = 6
_ONE_FORM = r"^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]{0,7})\.[0-9]{0,6}[1-9])$"


class _ManyFormsError(Exception):
    """Some value has several texts, or the texts are no regular language."""


def one_form(reader: SchemaReader, notation: JSONNotation, formula: Formula) -> Texts | None:
    """The texts of the values of a formula, one each, and the characters that they end with.

    None where some value has several texts, and in notations that are not JSON's own.
    """
    if type(notation) is not JSONNotation:
        return None
    writer = _OneForm(reader, notation)
    try:
        return writer.value(formula, MAX_DEPTH), writer.ends(formula)
    except (_ManyFormsError, InexactNumberError, RecursionError):
        return None


class _OneForm:
    def __init__(self, reader: SchemaReader, notation: JSONNotation) -> None:
        self._reader = reader
        self._separator, self._colon = literal(notation.separator.value), literal(notation.colon.value)

    def value(self, formula: Formula, depth: int) -> Language:
        if depth == 0:
            raise _ManyFormsError
        types = self._reader.types(formula)
        constants = [None] * types.null + sorted(types.booleans)
        parts = [literal(write_json(value)) for value in constants]
        if types.numbers:
            parts.append(self._numbers(types.numbers))
        if types.strings is not NOTHING:
            parts.append(quoted(types.strings))
        parts += [self._array(arrays, depth - 1) for arrays in types.arrays]
        parts += [self._object(objects, depth - 1) for objects in types.objects]
        return union(*parts)

    def ends(self, formula: Formula) -> frozenset[str]:
        types = self._reader.types(formula)
        kinds = (
            (types.null, "l"),
            (types.booleans, "e"),
            (types.numbers, "0123456789"),
            (types.strings is not NOTHING, '"'),
            (types.arrays, "]"),
            (types.objects, "}"),
        )
        return frozenset(char for is_there, chars in kinds if is_there for char in chars)

    def _numbers(self, parts: tuple[NumberType, ...]) -> Language:
        texts, form = language_of_numbers(parts), parse_regex(_ONE_FORM)
        return texts if are_disjoint(texts, complement(form)) else intersection(texts, form)

    def _array(self, arrays: ArrayType, depth: int) -> Language:
        if arrays.contains or arrays.unique is not None:
            raise _ManyFormsError
        longest = len(arrays.prefix)
        most = arrays.most
        if self._reader.is_surely_empty(arrays.items):
            most = longest if most is None else min(most, longest)
        prefix = [self.value(item, depth) for item in arrays.prefix[:most]]
        if most is not None and most <= longest:
            after = EMPTY_TEXT
        else:
            item = concat(self._separator, self.value(arrays.items, depth))
            after = repeat(item, max(0, arrays.least - longest), None if most is None else most - longest)
        if not prefix:
            return self._items(arrays, most, depth)
        for index in reversed(range(len(prefix))):
            after = concat(self._separator if index else EMPTY_TEXT, prefix[index], after)
            after = union(after, EMPTY_TEXT) if index >= arrays.least else after
        return concat(literal("["), after, literal("]"))

    def _items(self, arrays: ArrayType, most: int | None, depth: int) -> Language:
        if most == 0:
            return literal("[]")
        item = self.value(arrays.items, depth)
        more = repeat(concat(self._separator, item), max(0, arrays.least - 1), None if most is None else most - 1)
        some = concat(item, more)
        return concat(literal("["), some if arrays.least else union(some, EMPTY_TEXT), literal("]"))

    def _object(self, objects: ObjectType, depth: int) -> Language:
        if not objects.declares or objects.witnesses or objects.least > len(objects.required):
            raise _ManyFormsError
        if objects.most is not None and objects.most < len(objects.named):
            raise _ManyFormsError
        members = [
            (concat(literal(write_json(name)), self._colon, self.value(value, depth)), name in objects.required)
            for name, value in objects.named
            if name in objects.required or not self._reader.is_surely_empty(value)
        ]
        return concat(literal("{"), self._members(members), literal("}"))

    def _members(self, members: Sequence[tuple[Language, bool]]) -> Language:
        """From the last member to the first: what follows where nothing, or something, is written already."""
        empty = EMPTY_TEXT, EMPTY_TEXT

        def with_member(after: tuple[Language, Language], member: tuple[Language, bool]) -> tuple[Language, Language]:
            text, is_required = member
            first, later = concat(text, after[1]), concat(self._separator, text, after[1])
            return (first, later) if is_required else (union(first, after[0]), union(later, after[1]))

        return reduce(with_member, reversed(members), empty)[0]

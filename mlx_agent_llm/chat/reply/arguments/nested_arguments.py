"""Arguments as tags within tags: a tag for each property, named like it, and one named "item" for each item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.arguments.nested_grammar import NestedGrammar
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Waiting, collect, json_string_pieces
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import SchemaRules, schema_rules, write_json
from mlx_agent_llm.constrain.schema.values.types import NO_TYPE, TypeSet

ITEM = "item"
MAX_DEPTH = 100
_Element = str | list[tuple[str, "_Element"]]  # a text, or elements with their names


@dataclass(frozen=True)
class NestedArguments:
    """The elements of the arguments; `mark` stands before every tag, so that texts need no escapes.

    What an element means is said by the schema: a text, another value, an array or an object.
    """

    mark: str

    @property
    def literals(self) -> tuple[str, ...]:
        """The mark."""
        return (self.mark,)

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the arguments as a JSON object, parameter by parameter."""
        names: set[str] = set()
        yield "{"
        while (yield from self._is_at_element(cursor)):
            name = yield from self._read_name(cursor, names)
            yield f"{', ' if len(names) > 1 else ''}{write_json(name)}: "
            if parameters.is_text(name):
                yield from self._read_text(cursor, name)
            else:
                element = yield from self._read_element(cursor, name)
                yield write_json(_value_of(element, parameters.types(name), parameters))
        yield "}"

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the elements and of what ends the call."""
        whole = NestedGrammar(self.mark, ITEM, end).whole
        return schema_rules(tool.parameters, prefix, tool.strict, write_root=whole)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The elements as they are written, without those of None."""
        given = [(name, value) for name, value in arguments.items() if value is not None]
        return "".join(f"{self.mark}<{name}>{self._write_value(value)}{self.mark}</{name}>" for name, value in given)

    def _write_value(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return self.write(value)
        if isinstance(value, list):
            return "".join(f"{self.mark}<{ITEM}>{self._write_value(item)}{self.mark}</{ITEM}>" for item in value)
        return value if isinstance(value, str) else write_json(value)

    def _is_at_element(self, cursor: Cursor) -> Waiting[bool]:
        """Whether an element begins here, and not the end of what is around it."""
        yield from cursor.skip_blanks()
        for closing in (f"{self.mark}</", self.mark):
            if (yield from cursor.starts_with(closing)):
                return closing == self.mark
        raise BrokenCallError(f"{self.mark!r} is missing")

    def _read_name(self, cursor: Cursor, names: set[str]) -> Waiting[str]:
        yield from cursor.expect(f"{self.mark}<")
        name, marker = yield from collect(cursor.read_until(">"))
        if not marker or name in names:
            raise BrokenCallError(f"{name!r} comes twice" if marker else "'>' is missing")
        names.add(name)
        return name

    def _read_text(self, cursor: Cursor, name: str) -> Pieces[None]:
        """Yield a text as a JSON string as it comes, and read the tag that ends it."""
        yield '"'
        marker = yield from json_string_pieces(cursor.read_until(self.mark))
        if not marker:
            raise BrokenCallError(f"{self.mark!r} is missing")
        yield from cursor.expect(f"</{name}>")
        yield '"'

    def _read_element(self, cursor: Cursor, name: str, depth: int = 0) -> Waiting[_Element]:
        """What stands in an element whose opening tag was read, with its closing tag."""
        if depth > MAX_DEPTH:
            raise BrokenCallError(f"the arguments are nested deeper than {MAX_DEPTH}")
        text, marker = yield from collect(cursor.read_until(self.mark))
        if not marker:
            raise BrokenCallError(f"{self.mark!r} is missing")
        if (yield from cursor.skip(f"</{name}>")):
            return text
        elements: list[tuple[str, _Element]] = []
        cursor.position -= len(self.mark)
        while (yield from self._is_at_element(cursor)):
            inner = yield from self._read_name(cursor, set())
            elements.append((inner, (yield from self._read_element(cursor, inner, depth + 1))))
        yield from cursor.expect(f"{self.mark}</{name}>")
        if text.strip():
            raise BrokenCallError(f"{text!r} stands beside elements in {name!r}")
        return elements


def _value_of(element: _Element, types: TypeSet, parameters: Parameters) -> Any:
    """The value that an element means where values of these types may stand, NO_TYPE for any."""
    if isinstance(element, str):
        return _scalar(element, types, parameters)
    names = [name for name, _ in element]
    if set(names) == {ITEM} and (types.arrays or types == NO_TYPE):
        items = [parameters.item_types(types, index) for index in range(len(element))]
        return [_value_of(one, item, parameters) for (_, one), item in zip(element, items, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BrokenCallError(f"{twice!r} comes twice")
    return {name: _value_of(one, parameters.member_types(types, name), parameters) for name, one in element}


def _scalar(text: str, types: TypeSet, parameters: Parameters) -> Any:
    """A value that is valid and no text, else the text; an empty text may be an empty array or object, too."""
    if not text and not types.strings.is_nullable and (types.arrays or types.objects):
        return [] if types.arrays else {}
    try:
        value = load_json(text)
    except BrokenCallError:
        return text
    is_value = not isinstance(value, str | list | dict) and parameters.has(types, value)
    return value if is_value else text

"""Arguments as parameters between tags: texts stand there as they are, everything else as JSON."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.arguments.notations import PythonNotation, TaggedNotation
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.arguments.tags import Tags, kind_of
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Waiting, collect, json_characters
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import JSONNotation, SchemaRules, schema_rules, write_json
from mlx_agent_llm.request.constraints import SEPARATORS

PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_BLANKS = " \t\n\r"


@dataclass(frozen=True)
class TaggedArguments:
    """One parameter after another, each between its tags.

    With python_constants True, False and None may be written as in Python, too; with python_structures arrays and
    objects are. separators: those of JSON within values. Whatever is valid JSON, or else a Python literal, is read as
    such a value.
    """

    tags: Tags
    python_constants: bool = False
    python_structures: bool = False
    separators: tuple[str, str] = SEPARATORS

    @property
    def literals(self) -> tuple[str, ...]:
        """The tags."""
        leads = (lead for _, lead in self.tags.kinds)
        return (self.tags.begin, self.tags.name_end, self.tags.value_begin, self.tags.value_end, *leads)

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the parameters as a JSON object; texts as they come."""
        tags, is_first = self.tags, True
        yield "{"
        while (yield from cursor.match(tags.begin)):
            name, marker = yield from collect(cursor.read_until(tags.name_mark))
            name = name.strip()
            if not marker:
                raise BrokenCallError(f"{tags.name_mark!r} is missing")
            yield f"{'' if is_first else ', '}{write_json(name)}: "
            is_first = False
            kind = yield from self._read_kind(cursor)
            if tags.padding:
                yield from cursor.skip(tags.padding)
            if kind == "string" or (not kind and parameters.is_text(name)):
                yield from self._read_text(cursor)
            else:
                text = yield from self._read_whole(cursor)
                yield self._as_json(text, name, parameters)
        yield "}"

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the parameters and of what ends the call."""
        constants = tuple(PYTHON_CONSTANTS) if self.python_constants else ()
        whole = TaggedNotation(self.tags, end, constants).whole
        notation = PythonNotation("") if self.python_structures else JSONNotation(self.separators)
        return schema_rules(tool.parameters, prefix, tool.strict, notation=notation, write_root=whole)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The parameters as they are written."""
        return "".join(self._write(name, value) for name, value in arguments.items())

    def _write(self, name: str, value: Any) -> str:
        tags, text = self.tags, value if isinstance(value, str) else write_json(value, self.separators)
        value_text = tags.padding + text + tags.padding
        return f"{tags.begin}{name}{tags.lead(kind_of(value))}{value_text}{tags.value_end}{tags.after}"

    def _read_kind(self, cursor: Cursor) -> Waiting[str]:
        """The type that is written between name and value; "" where none is."""
        begin = len(self.tags.name_mark)
        for kind, lead in self.tags.kinds:
            if (yield from cursor.skip(lead[begin:])):
                return kind
        if self.tags.kinds:
            raise BrokenCallError("the type of a value is missing")
        yield from cursor.expect(self.tags.value_begin)
        return ""

    def _read_text(self, cursor: Cursor) -> Pieces[None]:
        """Yield the value as a JSON string; a last character that may be padding is held back."""
        yield '"'
        held = ""
        pieces = cursor.read_until(self.tags.value_end)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                if not end.value:
                    raise BrokenCallError(f"{self.tags.value_end!r} is missing") from None
                yield json_characters(held.removesuffix(self.tags.padding)) + '"'
                return
            if piece is None:
                yield None
                continue
            text, held = held + piece, ""
            if self.tags.padding and text.endswith(self.tags.padding):
                text, held = text.removesuffix(self.tags.padding), self.tags.padding
            if text:
                yield json_characters(text)

    def _read_whole(self, cursor: Cursor) -> Waiting[str]:
        text, marker = yield from collect(cursor.read_until(self.tags.value_end))
        if not marker:
            raise BrokenCallError(f"{self.tags.value_end!r} is missing")
        return text.removesuffix(self.tags.padding) if self.tags.padding else text

    def _as_json(self, text: str, name: str, parameters: Parameters) -> str:
        """JSON for what is written: a value that is valid and no text, else the text."""
        written = PYTHON_CONSTANTS.get(text.strip(_BLANKS), text) if self.python_constants else text
        try:
            value = load_json(written)
        except BrokenCallError:
            value = _read_python(text)
            written = write_json(value)
        is_value = not isinstance(value, str) and parameters.takes(name, value)
        return written.strip(_BLANKS) if is_value else json.dumps(text, ensure_ascii=False)


def _read_python(text: str) -> Any:
    """The value of a Python list or dict that JSON could hold, too; else the text."""
    if text.strip(_BLANKS)[:1] not in ("[", "{"):
        return text
    try:
        value = ast.literal_eval(text.strip(_BLANKS))
        return json.loads(json.dumps(value, allow_nan=False)) if _is_json(value) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    return (
        all(map(_is_json, value)) if isinstance(value, list) else value is None or isinstance(value, str | int | float)
    )

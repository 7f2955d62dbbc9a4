"""Arguments as parameters between tags: texts stand there as they are, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.arguments.notations import TaggedNotation
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Waiting, collect, json_characters
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import SchemaRules, schema_rules, write_json

PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_BLANKS = " \t\n\r"


@dataclass(frozen=True)
class TaggedArguments:
    """`begin`, the name, `name_end`, `value_begin`, the value and `value_end`, and so on.

    padding: a line break that stands before and after the value and is no part of it. after: a blank after each
    parameter. With python_constants True, False and None may be written as in Python, too.
    """

    begin: str
    name_end: str
    value_begin: str
    value_end: str
    padding: str = ""
    after: str = ""
    python_constants: bool = False

    @property
    def literals(self) -> tuple[str, ...]:
        """The tags."""
        return (self.begin, self.name_end, self.value_begin, self.value_end)

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the parameters as a JSON object; texts as they come."""
        is_first = True
        yield "{"
        while (yield from cursor.match(self.begin)):
            name, marker = yield from collect(cursor.read_until(self.name_end))
            name = name.strip()
            if not marker:
                raise BrokenCallError(f"{self.name_end!r} is missing")
            yield f"{'' if is_first else ', '}{write_json(name)}: "
            is_first = False
            yield from cursor.expect(self.value_begin)
            if self.padding:
                yield from cursor.skip(self.padding)
            if parameters.is_text(name):
                yield from self._read_text(cursor)
            else:
                text = yield from self._read_whole(cursor)
                yield self._as_json(text, name, parameters)
        yield "}"

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """Return the rules of the parameters and of what ends the call."""
        return schema_rules(tool.parameters, prefix, write_root=TaggedNotation(self, end).whole)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Return the parameters as they are written."""
        return "".join(self._write(name, value) + self.after for name, value in arguments.items())

    def _write(self, name: str, value: Any) -> str:
        text = value if isinstance(value, str) else write_json(value)
        return f"{self.begin}{name}{self.name_end}{self.value_begin}{self.padding}{text}{self.padding}{self.value_end}"

    def _read_text(self, cursor: Cursor) -> Pieces[None]:
        """Yield the value as a JSON string; a last character that may be padding is held back."""
        yield '"'
        held = ""
        pieces = cursor.read_until(self.value_end)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                if not end.value:
                    raise BrokenCallError(f"{self.value_end!r} is missing") from None
                yield json_characters(held.removesuffix(self.padding)) + '"'
                return
            if piece is None:
                yield None
                continue
            text, held = held + piece, ""
            if self.padding and text.endswith(self.padding):
                text, held = text.removesuffix(self.padding), self.padding
            if text:
                yield json_characters(text)

    def _read_whole(self, cursor: Cursor) -> Waiting[str]:
        text, marker = yield from collect(cursor.read_until(self.value_end))
        if not marker:
            raise BrokenCallError(f"{self.value_end!r} is missing")
        return text.removesuffix(self.padding) if self.padding else text

    def _as_json(self, text: str, name: str, parameters: Parameters) -> str:
        """Return JSON for what is written: a value that is valid and no text, else the text."""
        written = PYTHON_CONSTANTS.get(text.strip(_BLANKS), text) if self.python_constants else text
        try:
            value = load_json(written)
        except BrokenCallError:
            return write_json(text)
        is_value = not isinstance(value, str) and parameters.takes(name, value)
        return written.strip(_BLANKS) if is_value else json.dumps(text, ensure_ascii=False)

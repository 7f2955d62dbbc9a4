"""Arguments as parameters between tags: texts stand there as they are, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.arguments.notations import TaggedNotation
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Waiting, collect, json_characters
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import SchemaRules, schema_rules, write_json

PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_BLANKS = " \t\n\r"


@dataclass(frozen=True)
class TaggedArguments:
    """One parameter after another, each between its tags.

    With python_constants True, False and None may be written as in Python, too.
    """

    tags: Tags
    python_constants: bool = False

    @property
    def literals(self) -> tuple[str, ...]:
        """The tags."""
        return (self.tags.begin, self.tags.name_end, self.tags.value_begin, self.tags.value_end)

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the parameters as a JSON object; texts as they come."""
        tags, is_first = self.tags, True
        yield "{"
        while (yield from cursor.match(tags.begin)):
            name, marker = yield from collect(cursor.read_until(tags.name_end))
            name = name.strip()
            if not marker:
                raise BrokenCallError(f"{tags.name_end!r} is missing")
            yield f"{'' if is_first else ', '}{write_json(name)}: "
            is_first = False
            yield from cursor.expect(tags.value_begin)
            if tags.padding:
                yield from cursor.skip(tags.padding)
            if parameters.is_text(name):
                yield from self._read_text(cursor)
            else:
                text = yield from self._read_whole(cursor)
                yield self._as_json(text, name, parameters)
        yield "}"

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the parameters and of what ends the call."""
        constants = tuple(PYTHON_CONSTANTS) if self.python_constants else ()
        notation = TaggedNotation(self.tags, end, constants)
        return schema_rules(tool.parameters, prefix, tool.strict, write_root=notation.whole)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The parameters as they are written."""
        return "".join(self._write(name, value) for name, value in arguments.items())

    def _write(self, name: str, value: Any) -> str:
        tags, text = self.tags, value if isinstance(value, str) else write_json(value)
        value_text = tags.padding + text + tags.padding
        return f"{tags.begin}{name}{tags.name_end}{tags.value_begin}{value_text}{tags.value_end}{tags.after}"

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
            return write_json(text)
        is_value = not isinstance(value, str) and parameters.takes(name, value)
        return written.strip(_BLANKS) if is_value else json.dumps(text, ensure_ascii=False)

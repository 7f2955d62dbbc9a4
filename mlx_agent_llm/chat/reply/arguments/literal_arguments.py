"""Arguments as literals of a notation that is near to JSON: Python's, or Gemma's with its quotes without escapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlx_agent_llm.chat.reply.arguments.json_text import load_json
from mlx_agent_llm.chat.reply.arguments.notations import PythonNotation, QuotedNotation
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.cursor import (
    BrokenCallError,
    Cursor,
    Pieces,
    Waiting,
    collect,
    json_characters,
    json_string_pieces,
)
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import SchemaRules, schema_rules, write_json
from mlx_agent_llm.languages.context_free import TextNode, sequence

CONSTANTS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
MAX_DEPTH = 100

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_NUM_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Literals:
    """How values are written: with which quotes, whether texts have Python's escapes, and whether keys have quotes."""

    quotes: tuple[str, ...]
    has_escapes: bool
    keys_are_quoted: bool
    separator: str = ", "
    colon: str = ": "

    def write(self, value: Any) -> str:
        """A value as it is written."""
        match value:
            case str():
                return self._write_text(value)
            case list():
                return f"[{self.separator.join(map(self.write, value))}]"
            case dict():
                members = (f"{self._write_key(key)}{self.colon}{self.write(item)}" for key, item in value.items())
                return f"{{{self.separator.join(members)}}}"
            case True | False | None if self.has_escapes:
                return str(value)
        return write_json(value)

    def read(self, cursor: Cursor, depth: int = 0) -> Pieces[None]:
        """Yield a value as JSON text."""
        if depth > MAX_DEPTH:
            raise BrokenCallError(f"the arguments are nested deeper than {MAX_DEPTH}")
        yield from cursor.skip_blanks()
        quote = yield from self._read_quote(cursor)
        if quote:
            yield from self._read_text(cursor, quote)
        elif (yield from cursor.skip("{")):
            yield from self.read_members(cursor, "}", depth + 1)
        elif (yield from cursor.skip("[")):
            yield from self._read_items(cursor, depth + 1)
        else:
            yield (yield from self._read_scalar(cursor))

    def read_members(self, cursor: Cursor, close: str, depth: int = 0, colon: str = ":") -> Pieces[None]:
        """Yield members up to the closing bracket as a JSON object."""
        is_first = True
        yield "{"
        while not (yield from _is_closed(cursor, close, not is_first)):
            key = yield from self._read_key(cursor, colon)
            yield f"{'' if is_first else ', '}{write_json(key)}: "
            is_first = False
            yield from cursor.expect(colon)
            yield from self.read(cursor, depth)
        yield "}"

    def _read_items(self, cursor: Cursor, depth: int) -> Pieces[None]:
        is_first = True
        yield "["
        while not (yield from _is_closed(cursor, "]", not is_first)):
            yield "" if is_first else ", "
            is_first = False
            yield from self.read(cursor, depth)
        yield "]"

    def _read_quote(self, cursor: Cursor) -> Waiting[str]:
        for quote in self.quotes:
            if (yield from cursor.skip(quote)):
                return quote
        return ""

    def _read_key(self, cursor: Cursor, colon: str) -> Waiting[str]:
        quote = yield from self._read_quote(cursor)
        if not quote:
            return (yield from _read_word(cursor, colon))
        text, _ = yield from collect(self._read_text(cursor, quote))
        key = load_json(text)
        assert isinstance(key, str), "what stands between quotes is a text"
        return key

    def _read_text(self, cursor: Cursor, quote: str) -> Pieces[None]:
        """Yield a text as a JSON string, from after its opening quote on."""
        yield '"'
        while True:
            marker = yield from json_string_pieces(cursor.read_until(quote, *(["\\"] if self.has_escapes else [])))
            if marker == quote:
                break
            if not marker:
                raise BrokenCallError("a text does not end")
            yield json_characters((yield from _read_escape(cursor)))
        yield '"'

    def _read_scalar(self, cursor: Cursor) -> Waiting[str]:
        word = yield from _read_word(cursor, ",]})")
        if word not in CONSTANTS and not _NUMBER.fullmatch(word):
            raise BrokenCallError(f"{word!r} is no value")
        return CONSTANTS.get(word, word)

    def _write_text(self, text: str) -> str:
        quote = self.quotes[0]
        return write_json(text) if self.has_escapes else f"{quote}{text}{quote}"

    def _write_key(self, key: str) -> str:
        return self._write_text(key) if self.keys_are_quoted else key


@dataclass(frozen=True)
class BracedArguments:
    """One object in braces."""

    values: Literals

    @property
    def literals(self) -> tuple[str, ...]:
        """The quotes."""
        return self.values.quotes

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the arguments as a JSON object."""
        yield from cursor.expect("{")
        yield from self.values.read_members(cursor, "}")

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the arguments and of what ends the call."""
        rules = schema_rules(tool.parameters, prefix, tool.strict, notation=QuotedNotation(self.values.quotes[0]))
        return replace(rules, root=sequence(rules.root, TextNode(end)))

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The arguments as they are written."""
        return self.values.write(dict(arguments))


@dataclass(frozen=True)
class KeywordArguments:
    """Python's keyword arguments in parentheses."""

    values: Literals

    @property
    def literals(self) -> tuple[str, ...]:
        """The quotes."""
        return self.values.quotes

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the arguments as a JSON object."""
        yield from cursor.expect("(")
        yield from self.values.read_members(cursor, ")", colon="=")

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the arguments and of what ends the call."""
        notation = PythonNotation(")" + end)
        return schema_rules(tool.parameters, prefix, tool.strict, notation=notation, write_root=notation.whole)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The arguments as they are written."""
        return f"({', '.join(f'{name}={self.values.write(value)}' for name, value in arguments.items())})"


def _is_closed(cursor: Cursor, close: str, has_items: bool) -> Waiting[bool]:
    """Read the closing bracket, or the comma before another item; a comma may stand before the bracket too."""
    yield from cursor.skip_blanks()
    if (yield from cursor.skip(close)):
        return True
    if has_items:
        yield from cursor.expect(",")
        yield from cursor.skip_blanks()
        return (yield from cursor.skip(close))
    return False


def _read_word(cursor: Cursor, ends: str) -> Waiting[str]:
    """The text up to one of the characters, without blanks around it."""
    begin = cursor.position
    while (char := (yield from cursor.peek())) and char not in ends:
        cursor.position += 1
    return cursor.text[begin : cursor.position].strip()


def _read_escape(cursor: Cursor) -> Waiting[str]:
    """What a backslash, which was read, and the characters after it stand for."""
    char = yield from cursor.peek()
    cursor.position += 1
    if char not in _NUM_HEX_DIGITS:
        return _ESCAPES.get(char, char if char in "\\'\"" else "\\" + char)
    code = yield from _read_code(cursor, _NUM_HEX_DIGITS[char])
    if 0xD800 <= code < 0xDC00 and (yield from cursor.skip("\\u")):  # JSON's way to write a character beyond U+FFFF
        low = yield from _read_code(cursor, 4)
        code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00 if 0xDC00 <= low < 0xE000 else code
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise BrokenCallError(f"U+{code:04X} is no character")
    return chr(code)


def _read_code(cursor: Cursor, num_digits: int) -> Waiting[int]:
    begin = cursor.position
    while cursor.position < begin + num_digits and (yield from cursor.peek()) not in ("", *" \t\n"):
        cursor.position += 1
    digits = cursor.text[begin : begin + num_digits]
    if not re.fullmatch(f"[0-9A-Fa-f]{{{num_digits}}}", digits):
        raise BrokenCallError(f"{digits!r} must be {num_digits} hexadecimal digits")
    return int(digits, 16)

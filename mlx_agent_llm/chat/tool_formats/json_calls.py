"""The streaming parser of `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

The end of a call is found by scanning its JSON, so that markers inside a string argument are text. Nothing is
repaired: a call that is cut off or that is not exactly of this form becomes an InvalidToolCall with all of its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from jsonschema import Draft202012Validator

from mlx_agent_llm.chat.output import ChatDelta, InvalidToolCall, ToolCall, ToolCallDelta, new_call_id
from mlx_agent_llm.chat.tools import Tool

BEGIN, END = "<tool_call>", "</tool_call>"
EXAMPLE = f'{BEGIN}{{"name": "...", "arguments": {{...}}}}{END}'

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*')
_NOT_JSON = re.compile(r"[^\s{}\[\]:,\"0-9A-Za-z+.-]")  # what no JSON has outside its strings

State = Literal["text", "rest", "json", "closing", "broken"]


class PlainText:
    """The parser of replies in which no call is possible."""

    def feed(self, text: str) -> list[ChatDelta]:
        """Return the text."""
        return _text(text)

    def end(self, cut_off: bool) -> list[ChatDelta]:
        """Return nothing: nothing is held back."""
        return []


class JSONCallParser:
    """Splits a reply into text and calls; the same calls and text for the same reply in any pieces.

    anywhere: a call may begin after any text; otherwise only at the start of the reply and behind another call. Blanks
    between and behind calls are no text.
    """

    def __init__(self, tools: Sequence[Tool], *, anywhere: bool) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._anywhere = anywhere
        self._state: State = "text"
        self._pending = ""  # what no state has consumed yet
        self._behind_call = False  # nothing but blanks since the last call
        self._num_calls = 0
        self._call = _OpenCall(0, frozenset())

    def feed(self, text: str) -> list[ChatDelta]:
        """Return what a piece of the reply adds."""
        self._pending += text
        readers = {
            "text": self._read_text if self._anywhere else self._read_start,
            "rest": self._read_rest,
            "json": self._read_json,
            "closing": self._read_closing,
            "broken": self._read_broken,
        }
        deltas: list[ChatDelta] = []
        before: State | None = None
        while before != self._state:
            before = self._state
            deltas += readers[before]()
        return deltas

    def end(self, cut_off: bool) -> list[ChatDelta]:
        """Return what was held back: text, or a call that never ended."""
        pending, self._pending = self._pending, ""
        reason = f"{'the token budget' if cut_off else 'the reply'} ended inside the call"
        if self._state not in ("text", "rest"):
            return [_invalid(self._call.id, BEGIN + self._call.text + pending, reason)]
        if pending.strip() and not self._anywhere:  # only a begun marker is held back here
            return [_invalid(new_call_id(), pending, reason)]
        return [] if self._behind_call and not pending.strip() else _text(pending)

    def _read_text(self) -> list[ChatDelta]:
        before, marker, after = self._pending.partition(BEGIN)
        text = before if marker else before[: len(before) - _num_held_back(before)]
        in_gap = self._behind_call and not text.strip()
        if marker:
            self._begin_call(after)
            return [] if in_gap else _text(text)
        if in_gap:
            return []
        self._behind_call, self._pending = False, before[len(text) :]
        return _text(text)

    def _read_start(self) -> list[ChatDelta]:
        stripped = self._pending.lstrip()
        if stripped.startswith(BEGIN):
            self._begin_call(stripped.removeprefix(BEGIN))
        elif not BEGIN.startswith(stripped):
            self._state = "rest"
        return []

    def _read_rest(self) -> list[ChatDelta]:
        pending, self._pending = self._pending, ""
        return _text(pending)

    def _begin_call(self, pending: str) -> None:
        self._call = _OpenCall(self._num_calls, frozenset(self._tools))
        self._num_calls += 1
        self._state, self._pending = "json", pending

    def _read_json(self) -> list[ChatDelta]:
        num_read, self._state = self._call.read(self._pending)
        self._pending = self._pending[num_read:]
        return [ChatDelta(tool_call=fragment) for fragment in self._call.take_fragments()]

    def _read_closing(self) -> list[ChatDelta]:
        stripped = self._pending.lstrip()
        if stripped.startswith(END):
            blanks = self._pending[: len(self._pending) - len(stripped)]
            return self._end_call(blanks, stripped.removeprefix(END), self._call.result(self._tools))
        if not END.startswith(stripped):
            self._state = "broken"
        return []

    def _read_broken(self) -> list[ChatDelta]:
        before, marker, after = self._pending.partition(END)
        return self._end_call(before, after, f"it must be {EXAMPLE}") if marker else []

    def _end_call(self, before_end: str, pending: str, result: ToolCall | str) -> list[ChatDelta]:
        self._state, self._pending, self._behind_call = "text", pending, True
        if isinstance(result, ToolCall):
            return [ChatDelta(finished_call=result)]
        return [_invalid(self._call.id, BEGIN + self._call.text + before_end + END, result)]


class _OpenCall:
    """A call that is being read: its text, where its JSON stands, and what of its arguments was streamed."""

    def __init__(self, index: int, names: frozenset[str]) -> None:
        self.id = new_call_id()
        self.text = ""
        self._index = index
        self._names = names
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._name: str | None = None
        self._arguments: tuple[int, int | None] | None = None  # where they begin and end in the text
        self._num_streamed = 0

    def read(self, pending: str) -> tuple[int, State]:
        """Return how many characters belong to the JSON, and whether it goes on, is whole, or is none."""
        begin, self.text = len(self.text), self.text + pending
        for position in range(begin, len(self.text)):
            state = self._read_char(position)
            if state != "json":
                self.text = self.text[: position + (state == "closing")]
                return len(self.text) - begin, state
        return len(pending), "json"

    def take_fragments(self) -> list[ToolCallDelta]:
        """Return what can be streamed and was not: first the declared name, then pieces of the arguments."""
        if self._arguments is None:
            return []
        begin, end = self._arguments
        first = [ToolCallDelta(self._index, self.id, self._name)] if self._num_streamed == 0 else []
        piece = self.text[begin + self._num_streamed : end]
        self._num_streamed += len(piece)
        return first + ([ToolCallDelta(self._index, arguments=piece)] if piece else [])

    def result(self, tools: dict[str, Tool]) -> ToolCall | str:
        """Return the whole call, or why it is not valid."""
        head = _HEAD.match(self.text)
        if head is not None and head[1] not in tools:
            return f"unknown tool {head[1]!r}; known tools: {', '.join(map(repr, tools)) or 'none'}"
        if self._arguments is None or self.text[self._arguments[1] :].strip() != "}":
            return f"it must be {EXAMPLE}"
        assert self._name is not None, "arguments are found behind a declared name only"
        arguments_json = self.text[slice(*self._arguments)]
        arguments, error = _read_arguments(arguments_json, tools[self._name])
        return error or ToolCall(self.id, self._name, arguments, arguments_json)

    def _read_char(self, position: int) -> State:
        char = self.text[position]
        if self._in_string:
            self._in_string = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif _NOT_JSON.match(char) or (self._depth == 0 and char != "{" and not char.isspace()):
            return "broken"
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._open(position)
        elif char in "}]":
            return self._close(position)
        return "json"

    def _open(self, position: int) -> None:
        self._depth += 1
        if self._depth == 2 and self.text[position] == "{" and self._arguments is None:
            head = _HEAD.fullmatch(self.text, 0, position)
            if head is not None and head[1] in self._names:
                self._name, self._arguments = head[1], (position, None)

    def _close(self, position: int) -> State:
        self._depth -= 1
        if self._depth == 1 and self._arguments is not None and self._arguments[1] is None:
            self._arguments = (self._arguments[0], position + 1)
        return "closing" if self._depth == 0 else "json"


def _read_arguments(text: str, tool: Tool) -> tuple[dict[str, Any], str | None]:
    """Return the arguments, and what keeps them from being valid for the tool."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"the arguments are not JSON: {error}"
    violation = next(Draft202012Validator(tool.parameters).iter_errors(arguments), None)
    return arguments, None if violation is None else f"arguments{violation.json_path[1:]}: {violation.message}"


def _invalid(call_id: str, text: str, error: str) -> ChatDelta:
    return ChatDelta(finished_call=InvalidToolCall(call_id, text, error))


def _text(text: str) -> list[ChatDelta]:
    return [ChatDelta(text=text)] if text else []


def _num_held_back(text: str) -> int:
    """Return the length of the longest end of `text` that may become the begin marker."""
    return max(length for length in range(len(BEGIN)) if text.endswith(BEGIN[:length]))

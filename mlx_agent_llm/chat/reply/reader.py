"""A reply as it streams, taken apart into reasoning, text and calls; the same for the same reply in any pieces.

Where a call ends is found by reading it, so that markers inside its arguments are text. Nothing is repaired: a call
that is cut off or broken becomes an InvalidToolCall with all of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from mlx_agent_llm.chat.output import ChatDelta, InvalidToolCall, new_call_id
from mlx_agent_llm.chat.reply.calls import OpenCall
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Reading, Waiting, collect, decided
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.reasoning import Thinking

Where = Literal["nowhere", "start", "anywhere"]


class ReplyReader:
    """Reads one reply of a format.

    calls: where they may stand. thinking: whether the reply may begin with a block of reasoning, or the prompt has
    opened one. Blanks around the reasoning, before calls and between them are no text.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        tools: Sequence[Tool],
        *,
        calls: Where = "anywhere",
        thinking: Thinking = "auto",
        num_earlier_calls: int = 0,
    ) -> None:
        self._format = tool_format
        self._syntax = tool_format.calls
        self._tools = {tool_format.write_name(tool.name): tool for tool in tools}
        self._calls: Where = "start" if calls == "anywhere" and self._syntax.opening else calls
        self._thinking = thinking
        self._num_earlier_calls = num_earlier_calls
        self._num_calls = 0
        self._is_cut_off = False
        self._cursor = Cursor()
        self._reading = self._read()

    def feed(self, text: str) -> list[ChatDelta]:
        """What a piece of the reply adds; markers, and what may become one, are held back."""
        self._cursor.text += text
        return decided(self._reading)

    def finish(self, cut_off: bool = False) -> list[ChatDelta]:
        """What was held back, when no more text comes; `cut_off`: at the token budget."""
        self._cursor.is_ended = True
        self._is_cut_off = cut_off
        return decided(self._reading)

    def _read(self) -> Reading[None]:
        yield from self._read_reasoning()
        if self._format.text_begin:
            yield from self._cursor.match(self._format.text_begin)
        if self._calls == "anywhere":
            yield from self._read_text_and_calls()
        elif self._calls == "start":
            yield from self._read_calls_or_text()
        else:
            yield from self._read_text_only()

    def _read_reasoning(self) -> Reading[None]:
        marks, cursor = self._format.reasoning, self._cursor
        if marks is None or self._thinking == "none":
            return
        begin = cursor.position
        if self._thinking == "auto":
            yield from cursor.skip_blanks()
            if not (yield from cursor.skip(marks.begin)) and not (yield from self._stands_at_bare_end(marks)):
                cursor.position = begin
                return
        yield from cursor.skip_blanks()
        pieces = cursor.read_until(marks.end)
        marker, held = yield from trimmed(pieces, lambda text: ChatDelta(reasoning=text))
        if marker:
            yield from cursor.skip_blanks()
            if marks.bridge:
                yield from cursor.match(marks.bridge)
        elif held:
            yield ChatDelta(reasoning=held)

    def _stands_at_bare_end(self, marks: Reasoning) -> Waiting[bool]:
        return marks.has_bare_end and (yield from self._cursor.starts_with(marks.end))

    def _read_text_only(self) -> Reading[None]:
        markers = [self._format.text_end] if self._format.text_end else []
        while marker := (yield from each(self._cursor.read_until(*markers), lambda text: ChatDelta(text=text))):
            if (yield from self._cursor.peek()):  # only the last one ends the text
                yield ChatDelta(text=marker)

    def _read_calls_or_text(self) -> Reading[None]:
        """Read calls at the beginning and directly after other calls; whatever else stands there is all text."""
        begin = self._cursor.position
        while (yield from self._syntax.stands_at(self._cursor)):
            yield from self._read_section()
            yield from self._cursor.skip_blanks()
            begin = self._cursor.position
        self._cursor.position = begin
        yield from self._read_text_only()

    def _read_text_and_calls(self) -> Reading[None]:
        bare = self._syntax.bare
        markers = [self._syntax.marker, self._format.text_end, "" if bare is None else bare.marker]
        markers = [marker for marker in markers if marker]
        is_behind_call = False
        while True:
            if is_behind_call:
                yield from self._cursor.skip_blanks()
            pieces = self._cursor.read_until(*markers)
            marker, held = yield from trimmed(pieces, lambda text: ChatDelta(text=text))
            if not marker:
                if held:
                    yield ChatDelta(text=held)
                return
            if marker != self._format.text_end:
                self._cursor.position -= len(marker)
                is_bare = bare is not None and marker == bare.marker
                yield from self._read_section(bare if is_bare else None)
                is_behind_call = True

    def _read_section(self, bare: CallSyntax | None = None) -> Reading[None]:
        """Read the calls that stand here, up to where the marker would have to stand again."""
        cursor, syntax = self._cursor, bare or self._syntax
        begin = cursor.position
        closing = yield from self._read_mark_around()
        if (yield from self._is_empty_section()):
            return
        opened = False
        while True:
            try:
                if not opened and syntax.section_begin:
                    yield from cursor.expect(syntax.section_begin)
                opened = True
                yield from cursor.expect(syntax.begin)
                yield from self._read_call(begin, syntax)
            except BrokenCallError as error:
                yield from self._give_up_call(begin, new_call_id(), str(error))
            begin = cursor.position
            if not syntax.is_section or not (yield from self._has_another()):
                break
        yield from cursor.match(syntax.section_end or self._forgotten_end(syntax))
        yield from cursor.match(closing)

    def _read_mark_around(self) -> Waiting[str]:
        """Read the mark before calls, where one stands here; return the one that stands after them then."""
        for opening, closing in self._syntax.around:
            if (yield from self._cursor.match(opening)):
                return closing
        return ""

    def _forgotten_end(self, syntax: CallSyntax) -> str:
        """What a bare call may end with all the same."""
        outer = self._syntax
        return "" if syntax is outer else outer.end.removeprefix(syntax.end) + outer.section_end

    def _is_empty_section(self) -> Waiting[bool]:
        if not self._syntax.section_begin or not self._syntax.section_end:
            return False
        return (yield from self._cursor.match(self._syntax.section_begin + self._syntax.section_end))

    def _has_another(self) -> Waiting[bool]:
        """Whether another call follows in the section; the separator is read then."""
        begin = self._cursor.position
        if self._syntax.separator.strip():
            return (yield from self._cursor.match(self._syntax.separator))
        found = yield from self._cursor.match(self._syntax.begin or self._syntax.body.head)
        self._cursor.position = begin
        return found

    def _read_call(self, begin: int, syntax: CallSyntax | None = None) -> Reading[None]:
        call = OpenCall(self._num_calls, self._tools, self._new_id)
        self._num_calls += 1
        try:
            yield from self._syntax.body.read(self._cursor, call)
            yield from self._cursor.expect((syntax or self._syntax).end)
        except BrokenCallError as error:
            yield from self._give_up_call(begin, call.id or new_call_id(), str(error))
            return
        try:
            yield ChatDelta(finished_call=call.finish())
        except BrokenCallError as error:
            text = self._cursor.text[begin : self._cursor.position]
            yield ChatDelta(finished_call=InvalidToolCall(call.id, text, str(error)))

    def _give_up_call(self, begin: int, call_id: str, error: str) -> Reading[None]:
        """Take the text up to what ends such a call as an invalid one."""
        if self._cursor.has_run_out:
            error = f"{'the token budget' if self._is_cut_off else 'the reply'} ended inside the call"
        closing = self._syntax.closing
        yield from collect(self._cursor.read_until(*([closing] if closing else [])))
        text = self._cursor.text[begin : self._cursor.position]
        yield ChatDelta(finished_call=InvalidToolCall(call_id, text, error))

    def _new_id(self, name: str, index: int) -> str:
        return self._format.new_id(name, self._num_earlier_calls + index)


def each(pieces: Pieces[str], make: Callable[[str], ChatDelta]) -> Reading[str]:
    """Yield a delta for each piece; return what the reader returns."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            marker: str = end.value
            return marker
        yield None if piece is None else make(piece)


def trimmed(pieces: Pieces[str], make: Callable[[str], ChatDelta]) -> Reading[tuple[str, str]]:
    """Yield a delta for each piece without the blanks at the end; return what the reader returns, and those blanks."""
    held = ""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return end.value, held
        if piece is None:
            yield None
            continue
        text = held + piece
        shown = text.rstrip()
        held = text[len(shown) :]
        if shown:
            yield make(shown)

"""Which text of a reply is free: what ReplyReader reads as text, told apart before the reply is whole."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from mlx_agent_llm.chat.reply.channel_reader import MESSAGE, RECIPIENT, START, stands_at_header
from mlx_agent_llm.chat.reply.cursor import Cursor, Pieces, collect, decided
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.request import TextPiece

_Reading = Generator[TextPiece | None, None, None]


class ReplyText:
    """Implements the engine's FreeText for a reply of a format that is text, or text and then calls.

    may_call: whether it may have calls. thinking: whether it may begin with a block of reasoning, or the prompt has
    opened one. Marks are no free text, and half of one is decided by what follows it.
    """

    def __init__(self, tool_format: ToolFormat, thinking: Thinking, *, may_call: bool) -> None:
        self._format = tool_format
        self._syntax = tool_format.calls
        self._thinking = thinking
        self._may_call = may_call
        self._cursor = Cursor()
        self._reading = self._read_messages() if tool_format.in_channels else self._read()
        self.has_calls = False

    def feed(self, text: str) -> Sequence[TextPiece]:
        """The pieces that more of the reply decides."""
        self._cursor.text += text
        return decided(self._reading)

    def finish(self) -> Sequence[TextPiece]:
        """What was held back, when no more text comes."""
        self._cursor.is_ended = True
        return decided(self._reading)

    def _read(self) -> _Reading:
        yield from self._read_reasoning()
        begin = self._cursor.position
        if self._may_call and (self._syntax.opening or self._format.text_begin):
            self.has_calls = yield from self._syntax.stands_at(self._cursor)
            self._cursor.position = begin
        if not self.has_calls:
            yield from self._read_text()
        yield from self._each(self._cursor.read_until(), is_free=False)

    def _read_reasoning(self) -> _Reading:
        marks, cursor = self._format.reasoning, self._cursor
        if marks is None or self._thinking == "none":
            return
        begin = cursor.position
        if self._thinking == "auto":
            yield from cursor.skip_blanks()
            found = yield from cursor.skip(marks.begin)
            if not found and not (marks.has_bare_end and (yield from cursor.starts_with(marks.end))):
                cursor.position = begin
                return
            yield self._mark(begin)
        yield TextPiece((yield from self._each(cursor.read_until(marks.end), is_free=False)), False)
        if marks.bridge:
            begin = cursor.position
            yield from cursor.skip_blanks()
            yield from cursor.match(marks.bridge)
            yield self._mark(begin)

    def _read_text(self) -> _Reading:
        """Read text up to the first call."""
        cursor, begin = self._cursor, self._cursor.position
        if self._format.text_begin and (yield from cursor.match(self._format.text_begin)):
            yield self._mark(begin)
        leads_to_call = self._may_call and not self._syntax.opening and not self._format.text_begin
        call = self._syntax.marker if leads_to_call else ""
        markers = [marker for marker in (call, self._format.text_end) if marker]
        while marker := (yield from self._each(cursor.read_until(*markers), is_free=True)):
            yield TextPiece(marker, False)
            self.has_calls = marker == call
            if self.has_calls:
                return

    def _read_messages(self) -> _Reading:
        """Read one message after another, as ChannelReader does."""
        cursor = self._cursor
        while not self.has_calls:
            begin = cursor.position
            yield from cursor.match(START)
            yield self._mark(begin)
            begin = cursor.position
            if not (yield from stands_at_header(cursor)):
                break
            header, _ = yield from collect(cursor.read_until(MESSAGE))
            yield self._mark(begin)
            self.has_calls = RECIPIENT.search(header) is not None
            is_free = not self.has_calls and "analysis" not in header
            ends = () if self.has_calls else ("<|end|>", "<|return|>")
            yield TextPiece((yield from self._each(cursor.read_until(*ends), is_free=is_free)), False)
            if not (yield from cursor.peek()):
                return
        yield from self._each(cursor.read_until(), is_free=not self.has_calls)

    def _mark(self, begin: int) -> TextPiece:
        return TextPiece(self._cursor.text[begin : self._cursor.position], False)

    def _each(self, pieces: Pieces[str], *, is_free: bool) -> Generator[TextPiece | None, None, str]:
        """Yield each piece; return what the reader returns."""
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                marker: str = end.value
                return marker
            yield None if piece is None else TextPiece(piece, is_free)

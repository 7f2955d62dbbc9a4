"""A reply that is one message after another, each in a channel that its header names."""

from __future__ import annotations

import re

from mlx_agent_llm.chat.output import ChatDelta
from mlx_agent_llm.chat.reply.cursor import Cursor, Reading, Waiting, collect
from mlx_agent_llm.chat.reply.reader import ReplyReader, each, trimmed

START, MESSAGE = "<|start|>assistant", "<|message|>"
RECIPIENT = re.compile(r"to=functions\.")


class ChannelReader(ReplyReader):
    """Reads messages with their headers; the recipient may stand before or after the channel.

    Texts of several messages, as of a preamble and the answer, stand on lines of their own.
    """

    def _read(self) -> Reading[None]:
        cursor, has_text = self._cursor, False
        while True:
            yield from cursor.match(START)
            begin = cursor.position
            if not (yield from stands_at_header(cursor)):
                yield from each(cursor.read_until(), lambda text: ChatDelta(text=text))
                return
            header, _ = yield from collect(cursor.read_until(MESSAGE))
            recipient = RECIPIENT.search(header)
            if recipient is not None:
                cursor.position = begin + recipient.end()
                yield from self._read_call(begin)
                _ = (yield from cursor.match("<|call|>")) or (yield from cursor.match("<|end|>"))
            elif "analysis" in header:
                yield from trimmed(cursor.read_until("<|end|>"), lambda text: ChatDelta(reasoning=text))
            else:  # an answer may hold the names of marks, and ends the reply
                ends = () if self._calls == "start" else ("<|end|>", "<|return|>")
                yield from [ChatDelta(text="\n")] if has_text else []
                has_text = True
                yield from each(cursor.read_until(*ends), lambda text: ChatDelta(text=text))
            if not (yield from cursor.peek()):
                return


def stands_at_header(cursor: Cursor) -> Waiting[bool]:
    """Whether the header of a message stands here; nothing is read."""
    for begin in ("<|channel|>", " to="):
        if (yield from cursor.starts_with(begin)):
            return True
    return False

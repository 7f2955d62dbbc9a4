"""GPT-OSS: a reply is one message after another, each in a channel; a call is a message to a function."""

from __future__ import annotations

import re
from typing import Any

from mlx_agent_llm.chat.output import ChatDelta
from mlx_agent_llm.chat.reply.calls import JSONArguments, NamedCall
from mlx_agent_llm.chat.reply.cursor import Reading, Waiting, collect
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.reader import ReplyReader, each, trimmed
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

_START, _MESSAGE = "<|start|>assistant", "<|message|>"
_RECIPIENT = re.compile(r"to=functions\.")


class HarmonyReader(ReplyReader):
    """Reads messages with their headers; the recipient may stand before or after the channel."""

    def _read(self) -> Reading[None]:
        cursor = self._cursor
        while True:
            yield from cursor.match(_START)
            begin = cursor.position
            if not (yield from self._stands_at_header()):
                yield from each(cursor.read_until(), lambda text: ChatDelta(text=text))
                return
            header, _ = yield from collect(cursor.read_until(_MESSAGE))
            recipient = _RECIPIENT.search(header)
            if recipient is not None:
                cursor.position = begin + recipient.end()
                yield from self._read_call(begin)
                yield from cursor.match("<|call|>")
            elif "analysis" in header:
                yield from trimmed(cursor.read_until("<|end|>"), lambda text: ChatDelta(reasoning=text))
            else:  # an answer may hold the names of marks, and ends the reply
                ends = () if self._calls == "start" else ("<|end|>", "<|return|>")
                yield from each(cursor.read_until(*ends), lambda text: ChatDelta(text=text))
            if not (yield from cursor.peek()):
                return

    def _stands_at_header(self) -> Waiting[bool]:
        for begin in ("<|channel|>", " to="):
            if (yield from self._cursor.starts_with(begin)):
                return True
        return False


class Harmony(ToolFormat):
    """The format with its own reader."""

    def stream_parser(self, *arguments: Any, **options: Any) -> HarmonyReader:
        """Return a reader of one reply; see ToolFormat."""
        return HarmonyReader(self, *arguments, **options)


# <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}, ended by the end token <|call|>
HARMONY = Harmony(
    name="harmony",
    signs=("<|channel|>", _START),
    reasoning=Reasoning("<|channel|>analysis<|message|>", "<|end|>", sign="<|channel|>analysis", bridge=_START, gap=0),
    text_begin=f"<|channel|>final{_MESSAGE}",
    not_in_text=("<|channel|>", "<|start|>", "<|message|>", "<|end|>", "<|return|>"),
    calls=CallSyntax(
        NamedCall(f" <|constrain|>json{_MESSAGE}", JSONArguments(), header_end=_MESSAGE),
        marker="<|channel|>commentary to=functions.",
        begin="<|channel|>commentary to=functions.",
        most=1,
    ),
)

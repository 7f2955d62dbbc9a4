"""One reply as a stream of typed events: what every API's encoder is a function of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mlx_agent_llm.chat import ChatDelta, InvalidToolCall, ToolCallDelta
from mlx_agent_llm.request import FinishReason, TokenLogprob, Usage


@dataclass(frozen=True)
class TextPiece:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True)
class ReasoningPiece:
    """A piece of what was thought before the answer."""

    text: str


@dataclass(frozen=True)
class CallBegin:
    """The index-th call begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallPiece:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """The call is whole; arguments is the text of all its pieces."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Logprobs:
    """The log-probabilities of the tokens of a step."""

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class ReplyEnd:
    """The end of the reply; stop_text is the one of the request's stop texts that ended it."""

    finish_reason: FinishReason
    usage: Usage
    stop_text: str | None = None


ReplyEvent = TextPiece | ReasoningPiece | CallBegin | CallPiece | CallEnd | Logprobs | ReplyEnd


@dataclass
class ReplyReader:
    """Turns the chat deltas of one reply into events; calls are numbered without gaps.

    A call that is none, because the reply was cut off in it, keeps what was shown of it, and is text where nothing was.
    """

    _calls: list[CallEnd] = field(default_factory=list)  # the last one as far as it has come

    def read(self, delta: ChatDelta) -> list[ReplyEvent]:
        """What a delta adds."""
        events: list[ReplyEvent] = []
        if delta.reasoning:
            events.append(ReasoningPiece(delta.reasoning))
        if delta.text:
            events.append(TextPiece(delta.text))
        if delta.tool_call is not None:
            events += self._call_pieces(delta.tool_call)
        if isinstance(delta.finished_call, InvalidToolCall):
            events.append(self._invalid_call(delta.finished_call))
        elif delta.finished_call is not None:
            events.append(self._calls[-1])
        if delta.logprobs:
            events.append(Logprobs(delta.logprobs))
        if delta.finish_reason is not None:
            assert delta.usage is not None
            events.append(ReplyEnd(delta.finish_reason, delta.usage, delta.stop_text))
        return events

    def _call_pieces(self, fragment: ToolCallDelta) -> Iterable[ReplyEvent]:
        if fragment.id is not None:
            assert fragment.name is not None
            self._calls.append(CallEnd(len(self._calls), fragment.id, fragment.name, ""))
            yield CallBegin(len(self._calls) - 1, fragment.id, fragment.name)
        if fragment.arguments:
            call = self._calls[-1]
            self._calls[-1] = CallEnd(call.index, call.id, call.name, call.arguments + fragment.arguments)
            yield CallPiece(call.index, fragment.arguments)

    def _invalid_call(self, call: InvalidToolCall) -> ReplyEvent:
        is_begun = bool(self._calls) and self._calls[-1].id == call.id
        return self._calls[-1] if is_begun else TextPiece(call.text)


@dataclass(frozen=True)
class WholeReply:
    """All events of one reply."""

    text: str
    reasoning: str
    calls: tuple[CallEnd, ...]
    logprobs: tuple[TokenLogprob, ...]
    end: ReplyEnd


def fold_reply(events: Iterable[ReplyEvent]) -> WholeReply:
    """The whole of a reply's events, the last of which is its end."""
    events = list(events)
    end = events[-1]
    assert isinstance(end, ReplyEnd)
    return WholeReply(
        "".join(event.text for event in events if isinstance(event, TextPiece)),
        "".join(event.text for event in events if isinstance(event, ReasoningPiece)),
        tuple(event for event in events if isinstance(event, CallEnd)),
        tuple(token for event in events if isinstance(event, Logprobs) for token in event.tokens),
        end,
    )

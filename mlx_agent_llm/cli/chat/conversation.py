"""Conversations on one engine: messages, branches that share their beginning, and calls of tools. Knows no console."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from typing import Any, Protocol

from mlx_agent_llm.chat import ChatDelta, ChatOutput, ToolCall, fold_chat
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.chat_options import ChatOptions

MAX_ROUNDS = 8  # of calls, after which the model has to answer

Message = dict[str, Any]


class Observer(Protocol):
    """Who sees a reply while it is written, and says which calls may run."""

    def see(self, delta: ChatDelta) -> None:
        """Take a piece of the reply."""

    def finish(self, reply: ChatOutput) -> None:
        """A reply is whole; calls may follow."""

    def may_call(self, call: ToolCall) -> bool:
        """Whether the call may run."""

    def see_result(self, call: ToolCall, result: str) -> None:
        """Take what a call gave."""


class Conversation:
    """Branches of messages, one of which goes on. run_tool: runs a call; it is asked for none without tools."""

    def __init__(
        self, engine: Engine, beginning: list[Message], options: ChatOptions, run_tool: Callable[[ToolCall], str]
    ) -> None:
        self.branches = [list(beginning)]
        self.current = 0
        self.last_reply: ChatOutput | None = None
        self._engine = engine
        self._options = options
        self._run_tool = run_tool

    @property
    def messages(self) -> list[Message]:
        """Those of the branch that goes on."""
        return self.branches[self.current]

    def ask(self, text: str, observer: Observer) -> None:
        """Add a user's turn and all that follows from it; if it fails or is interrupted, it was never asked."""
        before = len(self.messages)
        self.messages.append({"role": "user", "content": text})
        try:
            self._answer(observer)
        except BaseException:
            del self.messages[before:]
            raise

    def fork(self) -> int:
        """Go on in a copy, which shares the KV of what there is; the new branch's number."""
        self.branches.append(deepcopy(self.messages))
        self.current = len(self.branches) - 1
        return self.current

    def undo(self) -> bool:
        """Take the last user's turn back, with all that followed; False if there is none."""
        places = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        if places:
            del self.messages[places[-1] :]
        return bool(places)

    def _answer(self, observer: Observer) -> None:
        for round_number in range(MAX_ROUNDS + 1):
            reply = self._reply(observer, self._options_of(round_number))
            self.messages.append(_as_message(reply))
            if not reply.tool_calls:
                return
            self.messages.extend(_result(call, self._call(call, observer)) for call in reply.tool_calls)

    def _options_of(self, round_number: int) -> ChatOptions:
        """A call that is required is the first one; after the last round there has to be an answer."""
        if round_number == 0:
            return self._options
        return {**self._options, "tool_choice": "auto" if round_number < MAX_ROUNDS else "none"}

    def _reply(self, observer: Observer, options: ChatOptions) -> ChatOutput:
        with closing(self._engine.stream_chat(self.messages, **options)) as deltas:  # type: ignore[type-var]
            self.last_reply = reply = fold_chat(_seen(deltas, observer))
        observer.finish(reply)
        return reply

    def _call(self, call: ToolCall, observer: Observer) -> str:
        result = self._run_tool(call) if observer.may_call(call) else "The user did not allow this call."
        observer.see_result(call, result)
        return result


def _seen(deltas: Iterator[ChatDelta], observer: Observer) -> Iterator[ChatDelta]:
    for delta in deltas:
        observer.see(delta)
        yield delta


def _as_message(reply: ChatOutput) -> Message:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in reply.tool_calls
    ]
    return {"role": "assistant", "content": reply.text} | ({"tool_calls": calls} if calls else {})


def _result(call: ToolCall, result: str) -> Message:
    return {"role": "tool", "tool_call_id": call.id, "content": result}

"""Which calls a conversation holds, and which of them wait for an answer."""

from __future__ import annotations

from typing import Any

from mlx_agent_llm.errors import RequestError


class CallLedger:
    """The calls of a conversation so far, and which of them wait for an answer."""

    def __init__(self, in_order: bool) -> None:
        self._in_order = in_order
        self._known: dict[str, bool] = {}  # by id, whether it was answered since it was last made
        self._nameless: list[str] = []  # ids that were given to calls without one, as long as nobody answered
        self.invalid_ids: set[str] = set()

    def add(self, call_id: Any, place: str) -> str:
        """Take the id of a call, or give it one."""
        if call_id is None or call_id == "":
            call_id = f"unnamed_{len(self._known)}"
            self._nameless.append(call_id)
        if not isinstance(call_id, str):
            raise RequestError(f"{place}.id={call_id!r} must be a string")
        self._known[call_id] = False
        return call_id

    def answer(self, call_id: Any, place: str) -> str:
        """The id of the call that a tool's message answers."""
        if not call_id and self._nameless:
            call_id = self._nameless.pop(0)
        if not self._in_order:
            return str(call_id)
        if not isinstance(call_id, str) or call_id not in self._known:
            raise RequestError(
                f"{place}.tool_call_id={call_id!r} must be the id of a call in an earlier assistant message; "
                f"known ids: {', '.join(map(repr, sorted(self._known))) or 'none'}. "
                "What answers no call is a user's message"
            )
        if self._known[call_id]:
            raise RequestError(
                f"{place}.tool_call_id={call_id!r} is answered a second time: put all of a result into one message"
            )
        self._known[call_id] = True
        return call_id

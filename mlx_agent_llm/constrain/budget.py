"""Keeps the text of one request within reach of its end."""

from __future__ import annotations

from mlx_agent_llm.constrain.closing import Closing


class Budget:
    """Implements the engine's Budget: follows one text, and only where its end could get out of reach."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing
        self._state = closing.start()
        self._unread = b""  # what the text has behind the state

    def take(self, token_id: int, num_left: int) -> bool:
        """Read a token, unless num_left tokens behind it could not complete the text."""
        data = self._closing.text_of(token_id)
        if num_left >= self._closing.reserve:
            self._unread += data
            return True
        self._catch_up()
        after = self._closing.advance(self._state, data)
        if not self._closing.fits(after, num_left):
            return False
        self._state = after
        return True

    def closing_tokens(self) -> list[int]:
        """The tokens that complete the text."""
        self._catch_up()
        return self._closing.closing_tokens(self._state)

    def _catch_up(self) -> None:
        self._state, self._unread = self._closing.advance(self._state, self._unread), b""

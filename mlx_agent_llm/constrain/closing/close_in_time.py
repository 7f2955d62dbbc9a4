"""Keeps the text of one request within reach of its end."""

from __future__ import annotations

from mlx_agent_llm.constrain.closing.closing import Closing

_READ_AT_ONCE = 256  # bytes, about half a millisecond: no step has to read a whole text


class CloseInTime:
    """Implements the engine's Budget: follows one text, and only where its end could get out of reach."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing
        self._state = closing.start()
        self._unread = b""  # what the text has after the state

    def take(self, token_id: int, num_left: int) -> bool:
        """Read a token, unless num_left tokens after it could not complete the text."""
        data = self._closing.text_of(token_id)
        num_spare = num_left - self._closing.reserve
        if num_spare >= 0:
            self._unread += data
            if num_spare * _READ_AT_ONCE < len(self._unread):
                self._read(_READ_AT_ONCE)
            return True
        self._read(len(self._unread))
        after = self._closing.advance(self._state, data)
        if not self._closing.fits(after, num_left):
            return False
        self._state = after
        return True

    def closing_tokens(self) -> list[int]:
        """The tokens that complete the text."""
        self._read(len(self._unread))
        return self._closing.closing_tokens(self._state)

    def _read(self, num_bytes: int) -> None:
        self._state = self._closing.advance(self._state, self._unread[:num_bytes])
        self._unread = self._unread[num_bytes:]

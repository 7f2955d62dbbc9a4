"""Token by token to text, without ever showing half a character."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from types import MappingProxyType


class Detokenizer:
    """Turns one request's tokens into text as they come; the concatenation equals decoding all at once.

    token_bytes: the bytes of each token id, empty for special tokens; `shown` has those of special tokens that are
    shown all the same. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        shown: Mapping[int, bytes] = MappingProxyType({}),
        *,
        strip_leading_space: bool = False,
    ) -> None:
        self._token_bytes = token_bytes
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_between_characters = True
        self._strip = strip_leading_space  # SentencePiece writes a space before the first word

    def add(self, token_id: int) -> str:
        """The text that this token completes; ids beyond the tokenizer's (a padded vocabulary) add none."""
        piece = self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""
        piece = piece or self._shown.get(token_id, b"")
        if self._is_between_characters and piece.isascii():  # most tokens; the decoder takes four times as long
            return self._first_stripped(piece.decode("ascii"))
        text = self._decoder.decode(piece)
        self._is_between_characters = not self._decoder.getstate()[0]
        return self._first_stripped(text)

    def finish(self) -> str:
        """What is left of an unfinished character."""
        return self._first_stripped(self._decoder.decode(b"", final=True))

    def _first_stripped(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text

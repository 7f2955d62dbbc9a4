"""Text that comes in pieces, read as if it were all there: every reader is a generator that waits by yielding None.

What a reader decides depends on the text alone and never on how it was cut: it waits until the text says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import TypeVar

from mlx_agent_llm.chat.output import ChatDelta

T = TypeVar("T")
Waiting = Generator[None, None, T]  # waits for more text
Pieces = Generator[str | None, None, T]  # yields pieces of text as they come, or None to wait
Reading = Generator[ChatDelta | None, None, T]  # the same, of what a reply adds to a chat

_UNIT = re.compile(r'\s+|"[^"{]*"|\{(?:index|id|server)\}|[{}\[\],:()]|[^\s"{}\[\],:()]+|"')
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_PLACES = {  # what stands for what in a literal
    "{index}": frozenset("0123456789"),
    "{id}": _NAME_CHARACTERS,
    "{server}": _NAME_CHARACTERS,
}


class BrokenCallError(Exception):
    """The text of a call is not of its format; the message says why."""


class Cursor:
    """A place in a text that is still coming."""

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.is_ended = False
        self.has_run_out = False  # what was looked for may have stood after the end

    @property
    def rest(self) -> str:
        """What was not read so far."""
        return self.text[self.position :]

    def take(self, end: int) -> str:
        """Read and return the text up to an index."""
        begin, self.position = self.position, end
        return self.text[begin:end]

    def starts_with(self, literal: str) -> Waiting[bool]:
        """Whether the literal stands here; nothing is read."""
        while True:
            here = self.text[self.position : self.position + len(literal)]
            if here == literal or not literal.startswith(here):
                return here == literal
            if self.is_ended:
                self.has_run_out = True
                return False
            yield None

    def skip(self, literal: str) -> Waiting[bool]:
        """Read the literal if it stands here."""
        found = yield from self.starts_with(literal)
        if found:
            self.position += len(literal)
        return found

    def skip_blanks(self) -> Waiting[None]:
        """Read blanks up to the next character, or the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position].isspace():
                self.position += 1
            if self.position < len(self.text) or self.is_ended:
                return
            yield None

    def peek(self) -> Waiting[str]:
        """The next character, "" at the end; nothing is read."""
        while self.position >= len(self.text) and not self.is_ended:
            yield None
        self.has_run_out = self.has_run_out or self.position >= len(self.text)
        return self.text[self.position : self.position + 1]

    def match(self, literal: str) -> Waiting[bool]:
        """Read the literal up to its blanks: none are needed, and any are fine beside words, quotes and brackets.

        "{index}" stands for a number, "{id}" for an id, "{server}" for the name of a server. Where the literal does not
        stand here, nothing is read.
        """
        begin = self.position
        for unit in _units(literal):
            if unit.isspace():
                yield from self.skip_blanks()
                continue
            found = yield from self._match_unit(unit)
            if not found:
                self.position = begin
                return False
        return True

    def expect(self, literal: str) -> Waiting[None]:
        """Like match, but a BrokenCallError when something else stands here."""
        found = yield from self.match(literal)
        if not found:
            raise BrokenCallError(f"{json.dumps(literal, ensure_ascii=False)} is missing")

    def read_name(self) -> Waiting[str]:
        """The letters, digits, "_", "." and "-" that stand here."""
        begin = self.position
        while (yield from self.peek()) in _NAME_CHARACTERS:
            self.position += 1
        return self.text[begin : self.position]

    def read_until(self, *markers: str) -> Pieces[str]:
        """Yield the text up to the first of the markers as it comes; return that marker and read it, "" at the end."""
        while True:
            found = [(index, marker) for marker in markers if (index := self.text.find(marker, self.position)) >= 0]
            end, marker = min(found, default=(len(self.text), ""))
            if not marker and not self.is_ended:
                end -= max((held_back(self.rest, one) for one in markers), default=0)
            if end > self.position:
                yield self.text[self.position : end]
            self.position = end + len(marker)
            if marker or self.is_ended:
                self.has_run_out = self.has_run_out or not marker
                return marker
            yield None

    def _match_unit(self, unit: str) -> Waiting[bool]:
        if unit not in _PLACES:
            return (yield from self.skip(unit))
        begin = self.position
        while (yield from self.peek()) in _PLACES[unit]:
            self.position += 1
        return self.position > begin


def decided(reading: Iterator[T | None]) -> list[T]:
    """What a reader yields before it waits."""
    return list(iter(reading.__next__, None))


def collect(pieces: Pieces[T]) -> Waiting[tuple[str, T]]:
    """Wait for all pieces; return their text and what the reader returns."""
    texts: list[str] = []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return "".join(texts), end.value
        if piece is None:
            yield None
        else:
            texts.append(piece)


def json_string_pieces(pieces: Pieces[T]) -> Pieces[T]:
    """The pieces as they stand between the quotes of a JSON string."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            marker: T = end.value
            return marker
        yield piece if piece is None else json_characters(piece)


def json_characters(text: str) -> str:
    """A text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def held_back(text: str, marker: str) -> int:
    """The length of the longest end of `text` that may become the marker."""
    return next((n for n in range(min(len(marker) - 1, len(text)), 0, -1) if text.endswith(marker[:n])), 0)


@lru_cache(maxsize=1024)
def _units(literal: str) -> tuple[str, ...]:
    """Cut a literal where blanks are allowed, and put a blank unit there."""
    units: list[str] = []
    for unit in _UNIT.findall(literal):
        if not unit.isspace():
            units += [unit] if unit in _PLACES or (units and units[-1] in _PLACES) else [" ", unit]
    return (*units, " ") if literal[-1:].isspace() else tuple(units)

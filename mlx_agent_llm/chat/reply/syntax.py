"""How a family of models writes a reply: the marks around its reasoning, its text and its calls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from mlx_agent_llm.chat.reply.calls import JSONCall, NamedCall
from mlx_agent_llm.chat.reply.cursor import Cursor, Waiting
from mlx_agent_llm.languages.regex import parse_regex
from mlx_agent_llm.languages.regular import ANY_TEXT, Language, concat, literal

MAX_CALLS = 16
"""The most calls that one reply can make: a model that may go on would, sooner or later, never stop."""

_CONTROL_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


@dataclass(frozen=True)
class Reasoning:
    """The marks around what a model thinks before it answers.

    sign: what chat templates of such models hold. bridge: what stands between the block and the rest. gap: the most
    line breaks after the block. lead: a blank that stands before it.
    """

    begin: str
    end: str
    sign: str
    bridge: str = ""
    gap: int = 2
    lead: str = ""

    @property
    def has_bare_end(self) -> bool:
        """Whether a reply may begin with the end alone: so do models that were to think, and do not want to."""
        return not self.bridge


THINK = Reasoning("<think>", "</think>", sign="<think>")


@dataclass(frozen=True)
class CallSyntax:
    """The text around calls: `section_begin`, then for each call `begin`, the body and `end`, and `section_end`.

    marker: how the calls begin; no text of a reply holds it. opening: for a family without such a mark, the pattern of
    replies that are calls; then calls stand at the beginning alone. around: pairs of marks, one of which may stand
    around them. closing: what ends a call whose text is broken, "" where nothing does. most: the number of calls that a
    reply can make. leading, trailing: blanks that may stand before the first call and after the last one. "{index}",
    "{id}" and "{server}" in these texts stand for the number of a call, its id and the server of its tool. others: how
    else the model may write calls, with arguments that end alike.
    """

    body: NamedCall | JSONCall
    marker: str = ""
    opening: str = ""
    around: tuple[tuple[str, str], ...] = ()
    begin: str = ""
    end: str = ""
    section_begin: str = ""
    separator: str = ""
    section_end: str = ""
    closing: str = ""
    most: int = MAX_CALLS
    leading: str = ""
    trailing: str = ""
    others: tuple[CallSyntax, ...] = ()

    @property
    def spellings(self) -> tuple[CallSyntax, ...]:
        """All ways in which calls may be written."""
        return (self, *self.others)

    @cached_property
    def bare(self) -> CallSyntax | None:
        """How models write a call with tags whose outermost tags they forget; None where there is but one."""
        outer, _, inner = (self.section_begin + self.begin).rpartition("<")
        if not isinstance(self.body, NamedCall) or not self.body.is_tagged or not outer.rstrip().endswith(">"):
            return None
        end, close, _ = self.end.partition(">")
        return CallSyntax(self.body, marker=f"<{inner}", begin=f"<{inner}", end=end + close, closing=end + close)

    @property
    def is_section(self) -> bool:
        """Whether calls follow each other without the marker."""
        return bool(self.section_begin or self.separator.strip())

    @cached_property
    def replies_with_calls(self) -> Language:
        """The replies that begin with a call, of a family whose calls stand at the beginning alone."""
        return parse_regex(self.opening) if self.opening else concat(literal(self.marker), ANY_TEXT)

    def stands_at(self, cursor: Cursor) -> Waiting[bool]:
        """Whether calls stand here, after blanks, which are read where the calls have a mark."""
        if not self.opening:
            yield from cursor.skip_blanks()
            return (yield from cursor.starts_with(self.marker))
        language, position = self.replies_with_calls, cursor.position
        while language is not ANY_TEXT:
            while position >= len(cursor.text) and not cursor.is_ended:
                yield None
            if position >= len(cursor.text) or language.is_empty():
                return False
            language = language.derive(cursor.text[position])
            position += 1
        return True

    @property
    def literals(self) -> tuple[str, ...]:
        """All texts around calls."""
        section = (self.section_begin, self.separator, self.section_end)
        return (self.marker, self.begin, *self.body.literals, self.end, *section)


def control_tokens(literals: tuple[str, ...]) -> frozenset[str]:
    """What in these texts may be a control token of a vocabulary."""
    return frozenset(token for text in literals for token in _CONTROL_TOKEN.findall(text))

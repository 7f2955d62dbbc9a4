r"""Regular expressions as languages: ECMA-262 with the `u` flag, in which JSON Schema's `pattern` is written.

Forms of other dialects (Python's, Rust's) are read where they can mean one thing only: `\A`, `\Z`, `\z`,
`(?P<name>...)`, `(?i)` and `(?s)` in front, a brace or a bracket that opens nothing. Whatever is not regular, or means
different things to different readers, is refused.
"""

from __future__ import annotations

import re
from typing import NoReturn

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regex.anchors import (
    BEGIN,
    END,
    MAX_ANCHORED_COUNT,
    Expression,
    alternatives,
    counted,
    found_in_text,
    free,
    sequence,
)
from mlx_agent_llm.languages.regex.char_classes import ESCAPED_SETS, LINE_ENDS, ignore_case, property_set
from mlx_agent_llm.languages.regular import Language, characters
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet

MAX_DEPTH = 50

_CONTROL_ESCAPES = {"t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r"}
_HIGH_SURROGATES, _LOW_SURROGATES = range(0xD800, 0xDC00), range(0xDC00, 0xE000)
_COUNT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}", re.ASCII)
NAMED_GROUP = re.compile(r"\?P?<[^\W\d]\w*>")
_FLAGS = re.compile(r"\(\?([isu]+)\)")
_REFUSED_GROUPS = {
    "?=": "a lookahead is not regular in place",
    "?!": "a lookahead is not regular in place",
    "?<=": "a lookbehind is not regular in place",
    "?<!": "a lookbehind is not regular in place",
    "?>": "an atomic group is not part of ECMA-262",
    "?P=": "a back-reference is not regular",
}


def parse_regex(pattern: str) -> Language:
    """All texts in which the pattern is found: a match may stand anywhere, unless `^` and `$` say where.

    ConstraintError, with the position, for what is no pattern, for lookaround, back-references and word boundaries.
    """
    return found_in_text(PatternParser(pattern).parse())


def parse_full_match(pattern: str) -> Language:
    """The texts that the pattern matches from their beginning to their end; raises as parse_regex does."""
    return PatternParser(pattern).parse().whole


class PatternParser:
    """Reads a pattern from left to right; a method for each level of precedence."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._ignores_case = False
        self._dot = ~LINE_ENDS

    def parse(self) -> Expression:
        """The whole pattern; ConstraintError for what is none."""
        self._read_flags()
        expression = self._alternatives()
        if self._at < len(self._pattern):
            self._refuse("a ')' that closes nothing")
        return expression

    def _read_flags(self) -> None:
        if found := _FLAGS.match(self._pattern):
            self._at = found.end()
            self._ignores_case = "i" in found[1]
            self._dot = ANY_CHARACTER if "s" in found[1] else self._dot

    def _alternatives(self) -> Expression:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return alternatives(options)

    def _sequence(self) -> Expression:
        parts = []
        while self._at < len(self._pattern) and self._next not in "|)":
            parts.append(self._term())
        return sequence(parts)

    def _term(self) -> Expression:
        if self._take("^") or self._take(r"\A"):
            return self._anchor(BEGIN)
        if self._take("$") or self._take(r"\Z") or self._take(r"\z"):
            return self._anchor(END)
        return self._quantified(self._atom())

    def _anchor(self, anchor: Expression) -> Expression:
        self._refuse_quantifier()
        return anchor

    def _quantified(self, atom: Expression) -> Expression:
        start = self._at
        bounds = self._quantifier()
        if bounds is None:
            return atom
        if self._take("?"):
            pass  # a lazy quantifier finds other matches first, but the same ones
        elif self._take("+"):
            self._refuse("a possessive quantifier is not part of ECMA-262", self._at - 1)
        self._refuse_quantifier()
        expression = counted(atom, *bounds)
        if expression is None:
            self._refuse(f"an anchor is repeated more than {MAX_ANCHORED_COUNT} times", start)
        return expression

    def _refuse_quantifier(self) -> None:
        start = self._at
        if self._quantifier() is not None:
            self._refuse("a quantifier with nothing to repeat", start)

    def _quantifier(self) -> tuple[int, int | None] | None:
        if self._take("*"):
            return 0, None
        if self._take("+"):
            return 1, None
        if self._take("?"):
            return 0, 1
        if self._pattern.startswith("{,", self._at):
            self._refuse("'{,' means different things in different dialects")
        found = _COUNT.match(self._pattern, self._at)
        if found is None:
            return None
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if most is not None and least > most:
            self._refuse("the counts are out of order")
        self._at = found.end()
        return least, most

    def _atom(self) -> Expression:
        self._refuse_quantifier()
        start = self._at
        if self._take("("):
            return self._group()
        if self._take("."):
            return free(characters(self._dot))
        if self._take("["):
            return self._characters(self._char_class(), start)
        if self._take("\\"):
            return self._characters(self._escape(), start)
        self._at += 1
        return self._characters(CharSet.of(self._pattern[start]), start)

    def _group(self) -> Expression:
        start = self._at - 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"groups are nested deeper than {MAX_DEPTH}", start)
        self._group_head()
        expression = self._alternatives()
        if not self._take(")"):
            self._refuse("a '(' that is never closed", start)
        self._depth -= 1
        return expression

    def _group_head(self) -> None:
        if self._next != "?" or self._take("?:"):
            return
        if found := NAMED_GROUP.match(self._pattern, self._at):
            self._at = found.end()
            return
        heads = [head for head in _REFUSED_GROUPS if self._pattern.startswith(head, self._at)]
        self._refuse(_REFUSED_GROUPS[heads[0]] if heads else "a kind of group that is not part of ECMA-262")

    def _char_class(self) -> CharSet:
        start = self._at - 1
        is_negated = self._take("^")
        if self._next == "]":
            self._refuse("']' right after '[' means different things in different dialects")
        found = CharSet()
        while not self._take("]"):
            if self._at >= len(self._pattern):
                self._refuse("a '[' that is never closed", start)
            found |= self._class_range()
        folded = self._folded(found, start)
        return ~folded if is_negated else folded

    def _class_range(self) -> CharSet:
        start = self._at
        low = self._class_atom()
        if self._next != "-" or self._pattern.startswith("-]", self._at) or not isinstance(low, int):
            return _as_set(low)
        self._at += 1
        high = self._class_atom()
        if not isinstance(high, int):  # [a-\d]: three members
            return _as_set(low) | CharSet.of("-") | high
        if low > high:
            self._refuse("a range is out of order", start)
        return CharSet([(low, high)])

    def _class_atom(self) -> CharSet | int:
        """A code point, which may begin a range and may be a surrogate, or a set."""
        if self._pattern.startswith("[:", self._at) and ":]" in self._pattern[self._at :]:
            self._refuse("a POSIX class is not part of ECMA-262")
        if self._take("\\"):
            return ord("\b") if self._take("b") else self._escape()
        if self._at >= len(self._pattern):
            self._refuse("a range that is never closed")
        self._at += 1
        return ord(self._pattern[self._at - 1])

    def _escape(self) -> CharSet | int:
        """Read what follows a backslash."""
        start = self._at - 1
        char = self._next
        self._at += 1
        if char in ESCAPED_SETS:
            return ESCAPED_SETS[char]
        if char in ("p", "P"):
            return self._property(start, is_negated=char == "P")
        if char in _CONTROL_ESCAPES:
            return ord(_CONTROL_ESCAPES[char])
        if char == "0" and not self._next.isdecimal():
            return 0
        if char == "c" and self._next.isascii() and self._next.isalpha():
            self._at += 1
            return ord(self._pattern[self._at - 1]) % 32
        if char == "x":
            return self._hex_digits(2, start)
        if char == "u":
            return self._unicode_escape(start)
        if char == "" or char.isalnum():
            self._refuse_escape(char, start)
        return ord(char)

    def _refuse_escape(self, char: str, start: int) -> NoReturn:
        if char in ("b", "B"):
            self._refuse("a word boundary is not supported", start)
        if char == "k" or (char.isdecimal() and char != "0"):
            self._refuse("a back-reference is not regular", start)
        self._refuse("an escape that ECMA-262 does not know" if char else "a '\\' at the end", start)

    def _unicode_escape(self, start: int) -> int:
        if self._take("{"):
            end = self._pattern.find("}", self._at)
            code_point = self._hex_digits(end - self._at, start)
            self._at += 1
            if code_point > 0x10FFFF:
                self._refuse("a code point beyond U+10FFFF", start)
            return code_point
        code_unit = self._hex_digits(4, start)
        if code_unit in _HIGH_SURROGATES and self._pattern.startswith(r"\u", self._at):
            before = self._at
            self._at += 2
            low = self._hex_digits(4, before) if self._next != "{" else 0
            if low in _LOW_SURROGATES:
                return 0x10000 + (code_unit - 0xD800) * 0x400 + low - 0xDC00
            self._at = before
        return code_unit

    def _hex_digits(self, count: int, start: int) -> int:
        digits = self._pattern[self._at : self._at + count] if count > 0 else ""
        if len(digits) != count or not re.fullmatch("[0-9A-Fa-f]+", digits):
            self._refuse("an escape without its hexadecimal digits", start)
        self._at += count
        return int(digits, 16)

    def _property(self, start: int, is_negated: bool) -> CharSet:
        found = re.compile(r"\{([^}]*)\}").match(self._pattern, self._at)
        char_set = None if found is None else property_set(found[1])
        if found is None or char_set is None:
            self._refuse("only general categories, Any and ASCII are supported as properties", start)
        self._at = found.end()
        return ~char_set if is_negated else char_set

    def _characters(self, members: CharSet | int, start: int) -> Expression:
        return free(characters(self._folded(_as_set(members), start)))

    def _folded(self, char_set: CharSet, start: int) -> CharSet:
        folded = ignore_case(char_set) if self._ignores_case else char_set
        if folded is None:
            self._refuse("(?i) is supported on characters of ASCII alone", start)
        return folded

    @property
    def _next(self) -> str:
        """The next character, "" at the end."""
        return self._pattern[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _refuse(self, reason: str, position: int | None = None) -> NoReturn:
        position = self._at if position is None else position
        raise ConstraintError(f"pattern={self._pattern!r}: {reason} (at position {position})")


def _as_set(members: CharSet | int) -> CharSet:
    """A set; a lone surrogate is no character, so its set is empty."""
    return members if isinstance(members, CharSet) else CharSet([(members, members)])

r"""A user's grammar text to a ContextFreeGrammar, in the EBNF that xgrammar and llama.cpp (GBNF) have in common.

    root   ::= item ("," item){0,7}   # a comment
    item   ::= [a-z]+ | "\"" [^"\n]* "\""

Rules are `name ::= expression` and may go on in the next lines. Expressions: "text", [class], [^class], `.` (any
character), names, groups, `|`, and after an item `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free.nodes import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.regular import characters
from mlx_agent_llm.languages.regular.char_set import ANY_CHARACTER, CharSet

MAX_COUNT = 10_000

_TOKENS = re.compile(
    r"""(?P<blank>[ \t\r\n]+|\#[^\n]*)
      | (?P<begin>[A-Za-z_][A-Za-z0-9_.-]*[ \t]*::=)
      | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
      | (?P<text>"(?:[^"\\\n]|\\[^\n])*")
      | (?P<class>\[(?:[^\]\\\n]|\\[^\n])*\])
      | (?P<count>[*+?]|\{[0-9]+(?:,[0-9]*)?\})
      | (?P<mark>[|().])""",
    re.VERBOSE,
)
_CHARACTERS = re.compile(
    r"\\x(?P<hex2>[0-9A-Fa-f]{2})|\\u(?P<hex4>[0-9A-Fa-f]{4})|\\U(?P<hex8>[0-9A-Fa-f]{8})"
    r"|\\(?P<escape>[^xuU])|(?P<plain>[^\\])"
)
_ESCAPES: Mapping[str, str] = {
    **{char: char for char in "\\\"'[]^-/"},
    **dict(zip("nrtfvba0", "\n\r\t\f\v\b\a\0", strict=True)),
}
_COUNTS: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_EMPTY = SequenceNode(())


def parse_ebnf(text: str) -> ContextFreeGrammar:
    """The grammar, which begins at its rule `root`; a ConstraintError names the line that is wrong."""
    try:
        rules = _Parser(text).rules()
    except RecursionError:
        raise ConstraintError("grammar: its groups are nested too deeply") from None
    if "root" not in rules:
        raise ConstraintError("grammar: there is no rule `root`")
    return ContextFreeGrammar(RuleNode("root"), rules)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokenize(text)
        self._next = next(self._tokens)
        self._used: dict[str, int] = {}  # name -> the first line that uses it

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        while self._next.kind != "end":
            begin = self._take()
            if begin.kind != "begin":
                raise _error(begin.line, f"expected `name ::=`, but found {begin.text!r}")
            name = begin.text.removesuffix("::=").rstrip()
            if name in rules:
                raise _error(begin.line, f"the rule {name!r} is defined twice")
            rules[name] = self._choice()
            if self._next.kind not in ("begin", "end"):
                raise _error(self._next.line, f"{self._next.text!r} closes nothing or stands alone")
        for name, line in self._used.items():
            if name not in rules:
                raise _error(line, f"the rule {name!r} is not defined")
        return rules

    def _take(self) -> _Token:
        token, self._next = self._next, next(self._tokens, self._next)
        return token

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._next.text == "|":
            self._take()
            options.append(self._sequence())
        return options[0] if len(options) == 1 else ChoiceNode(tuple(options))

    def _sequence(self) -> Node:
        line, parts = self._next.line, list[Node]()
        while self._next.kind not in ("begin", "end", "count") and self._next.text not in ("|", ")"):
            parts.append(self._repeated(self._item()))
        if self._next.kind == "count":
            raise _error(self._next.line, f"{self._next.text!r} repeats nothing")
        if not parts:
            raise _error(line, 'an empty alternative must be written as ""')
        return parts[0] if len(parts) == 1 else SequenceNode(tuple(parts))

    def _item(self) -> Node:
        token = self._take()
        match token.kind:
            case "name":
                self._used.setdefault(token.text, token.line)
                return RuleNode(token.text)
            case "text":
                value = "".join(char for char, _ in _read_characters(token))
                return TextNode(value) if value else _EMPTY
            case "class":
                return PatternNode(characters(_read_class(token)))
        if token.text == ".":
            return PatternNode(characters(ANY_CHARACTER))
        node = self._choice()  # after "("
        if self._next.text != ")":
            raise _error(token.line, "this group is never closed")
        self._take()
        return node

    def _repeated(self, node: Node) -> Node:
        while self._next.kind == "count":
            token = self._take()
            least, most = _read_count(token)
            node = RepeatNode(node, least, most)
        return node


def _tokenize(text: str) -> Iterator[_Token]:
    line, position = 1, 0
    while position < len(text):
        match = _TOKENS.match(text, position)
        if match is None:
            raise _error(line, f"cannot be read from {text[position : position + 20].splitlines()[0]!r} on")
        if match.lastgroup != "blank":
            yield _Token(match.lastgroup or "", match[0], line)
        line += match[0].count("\n")
        position = match.end()
    yield _Token("end", "the end", line)


def _read_count(token: _Token) -> tuple[int, int | None]:
    if token.text in _COUNTS:
        return _COUNTS[token.text]
    lower, comma, upper = token.text[1:-1].partition(",")
    least = int(lower)
    most = least if not comma else int(upper) if upper else None
    if max(least, most or 0) > MAX_COUNT:
        raise _error(token.line, f"{token.text} counts beyond {MAX_COUNT}")
    if most is not None and least > most:
        raise _error(token.line, f"{token.text}: {least} is above {most}")
    return least, most


def _read_class(token: _Token) -> CharSet:
    inner = token.text[1:-1]
    is_negated = inner.startswith("^")
    chars = list(_read_characters(token))[is_negated:]
    ranges, index = [], 0
    while index < len(chars):
        low = high = chars[index][0]
        index += 1
        if chars[index : index + 1] == [("-", False)] and index + 1 < len(chars):
            high = chars[index + 1][0]
            index += 2
        if high < low:
            raise _error(token.line, f"{token.text}: {low!r} to {high!r} is no range")
        ranges.append((ord(low), ord(high)))
    found = ~CharSet(ranges) if is_negated else CharSet(ranges)
    if not found:
        raise _error(token.line, f"{token.text} holds no character")
    return found


def _read_characters(token: _Token) -> Iterator[tuple[str, bool]]:
    """The characters between the quotes or brackets, and whether each was escaped."""
    inner, position = token.text[1:-1], 0
    while position < len(inner):
        match = _CHARACTERS.match(inner, position)
        char = None if match is None else _character(match)
        if match is None or char is None or 0xD800 <= ord(char) <= 0xDFFF:
            raise _error(token.line, f"{token.text}: {inner[position : position + 2]!r} is no escape of a character")
        yield char, match.lastgroup != "plain"
        position = match.end()


def _character(match: re.Match[str]) -> str | None:
    match match.lastgroup:
        case "plain":
            return match[0]
        case "escape":
            return _ESCAPES.get(match["escape"])
    code = int(match[match.lastgroup or 0], 16)
    return chr(code) if code <= 0x10FFFF else None


def _error(line: int, message: str) -> ConstraintError:
    return ConstraintError(f"grammar line {line}: {message}")

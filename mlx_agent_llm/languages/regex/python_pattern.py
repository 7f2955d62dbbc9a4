r"""Regular expressions of ECMA-262 as those of Python's `re`, with the same meaning: for what no language can hold.

`\d`, `\w`, `\s` and `.` are other sets there, `$` also stands before a last line end, and `\p{...}`, `\u{...}`, `\cA`
and `(?<name>...)` are errors.
"""

from __future__ import annotations

import re

from mlx_agent_llm.languages.regex.parser import NAMED_GROUP, PatternParser
from mlx_agent_llm.languages.regular.char_set import CharSet

_BACK_REFERENCE = re.compile(r"\\(?:k<(\w+)>|([1-9]\d*))")


def python_pattern(pattern: str) -> str:
    """The text that `re.search` takes; ConstraintError for what neither reads."""
    return _Translator(pattern).translate()


class _Translator(PatternParser):
    """Reads a pattern token by token; what groups and repeats is the same in both."""

    def translate(self) -> str:
        self._read_flags()
        tokens = ["(?i)"] if self._ignores_case else []
        while self._next:
            tokens.append(self._token())
        return "".join(tokens)

    def _token(self) -> str:
        if self._take("^") or self._take(r"\A"):
            return r"\A"
        if self._take("$") or self._take(r"\Z") or self._take(r"\z"):
            return r"\Z"
        if self._take("["):
            return _class_text(self._char_class())
        if self._take("."):
            return _class_text(self._dot)
        if self._next == "\\":
            return self._escaped()
        if self._next == "(":
            return self._opened()
        is_count = self._next == "{" and re.match(r"\{\d+(,\d*)?\}", self._pattern[self._at :])
        self._at += 1
        char = self._pattern[self._at - 1]
        return char if char in ")|*+?}" or is_count or char.isalnum() or char == "," else re.escape(char)

    def _escaped(self) -> str:
        for boundary in (r"\b", r"\B"):
            if self._take(boundary):
                return f"(?a:{boundary})"
        if found := _BACK_REFERENCE.match(self._pattern, self._at):
            self._at = found.end()
            return f"(?P={found[1]})" if found[1] else f"(?:\\{found[2]})"
        self._at += 1
        members = self._escape()
        return _class_text(members if isinstance(members, CharSet) else CharSet([(members, members)]))

    def _opened(self) -> str:
        self._at += 1
        if found := NAMED_GROUP.match(self._pattern, self._at):
            self._at = found.end()
            return f"(?P{found[0].removeprefix('?').removeprefix('P')}"
        heads = [head for head in ("?:", "?=", "?!", "?<=", "?<!") if self._take(head)]
        return f"({''.join(heads)}"


def _class_text(members: CharSet) -> str:
    spans = (f"\\U{low:08x}-\\U{high:08x}" for low, high in members.ranges)
    return f"[{''.join(spans)}]" if members else "(?!)"

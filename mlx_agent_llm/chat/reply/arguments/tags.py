"""The tags between which a format writes parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any


@dataclass(frozen=True)
class Tags:
    """`begin`, the name, `name_end`, `value_begin`, the value and `value_end`, and so on.

    padding: a line break that stands before and after the value and is no part of it. after: a blank after each
    parameter. kinds: where the text between name and value says of which JSON type it is, that text for each of
    "string", "number", "boolean", "null", "array" and "object", instead of name_end and value_begin.
    """

    begin: str
    name_end: str
    value_begin: str
    value_end: str
    padding: str = ""
    after: str = ""
    kinds: tuple[tuple[str, str], ...] = ()

    @property
    def name_mark(self) -> str:
        """What a name ends with, whatever the type of the value."""
        if not self.kinds:
            return self.name_end
        leads = [lead for _, lead in self.kinds]
        alike = takewhile(lambda characters: len(set(characters)) == 1, zip(*leads, strict=False))
        return "".join(characters[0] for characters in alike)

    def lead(self, kind: str) -> str:
        """What stands between the name and a value of this type."""
        return dict(self.kinds).get(kind, self.name_end + self.value_begin)


def kind_of(value: Any) -> str:
    """The JSON type of a value, by the names that `Tags.kinds` has."""
    kinds = {str: "string", bool: "boolean", list: "array", dict: "object", type(None): "null"}
    return kinds.get(type(value), "number")

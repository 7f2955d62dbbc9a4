"""The tags between which a format writes parameters."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import commonprefix


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
        return commonprefix([lead for _, lead in self.kinds]) if self.kinds else self.name_end

    def lead(self, kind: str) -> str:
        """What stands between the name and a value of this type."""
        return dict(self.kinds).get(kind, self.name_end + self.value_begin)

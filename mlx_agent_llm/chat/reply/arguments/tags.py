"""The tags between which a format writes parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tags:
    """`begin`, the name, `name_end`, `value_begin`, the value and `value_end`, and so on.

    padding: a line break that stands before and after the value and is no part of it. after: a blank after each
    parameter.
    """

    begin: str
    name_end: str
    value_begin: str
    value_end: str
    padding: str = ""
    after: str = ""

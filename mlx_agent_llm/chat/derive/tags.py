"""The tags between which a rendered call holds its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mlx_agent_llm.chat.derive.units import common_end
from mlx_agent_llm.chat.reply.arguments.tags import Tags, kind_of
from mlx_agent_llm.request.constraints import SEPARATORS

COMPACT = (",", ":")


class FoundTags(NamedTuple):
    """Tags, what stands between the name and the first of them, where the last value's tag ends.

    has_constants, has_structures: whether booleans, and arrays and objects, are written as in Python. separators: those
    of JSON within values.
    """

    tags: Tags
    before: str
    end: int
    has_constants: bool
    has_structures: bool
    separators: tuple[str, str]


class _Written(NamedTuple):
    """One parameter: what stands between its name and its value, and where the value ends."""

    lead: str
    end: int
    form: Literal["json", "compact", "python"]


def find_tags(text: str, arguments: Mapping[str, Any]) -> FoundTags | None:
    """The tags of the arguments, at least two and in their order, in the text after a call's name; None for none."""
    keys = list(arguments)
    places: list[tuple[int, _Written]] = []
    position = 0
    for key in keys:
        begin = text.find(key, position)
        written = None if begin < 0 else _find_value(text, begin + len(key), arguments[key])
        if written is None:
            return None
        places.append((begin, written))
        position = written.end
    return _between(text, places, [arguments[key] for key in keys])


def _between(text: str, places: list[tuple[int, _Written]], values: list[Any]) -> FoundTags | None:
    first_begin, first = places[0]
    behind = text[first.end : places[1][0]]
    begin = common_end(behind, text[:first_begin]).lstrip()
    if not begin or len(begin) >= len(behind):
        return None
    tail = behind[: len(behind) - len(begin)]
    padding = "\n" if first.lead.endswith("\n") and tail.startswith("\n") else ""
    value_end = tail.removeprefix(padding).rstrip()
    after = tail.removeprefix(padding)[len(value_end) :]
    leads = {
        kind_of(value): written.lead.removesuffix(padding) for value, (_, written) in zip(values, places, strict=True)
    }
    name_end, value_begin = _split_lead(leads["string"])
    is_alike = all(lead == leads["string"] for lead in leads.values())
    leads |= {"null": leads["boolean"].replace("boolean", "null")} if "boolean" in leads else {}
    kinds = () if is_alike else tuple(leads.items())
    tags = Tags(begin, name_end, value_begin, value_end, padding, after, kinds)
    end = places[-1][1].end + len(padding) + len(value_end)
    if text[places[-1][1].end : end] != padding + value_end:
        return None
    end += len(after) if text.startswith(after, end) else 0
    python = {kind_of(value) for value, (_, written) in zip(values, places, strict=True) if written.form == "python"}
    is_compact = any(written.form == "compact" for _, written in places)
    separators = COMPACT if is_compact else SEPARATORS
    return FoundTags(tags, text[: first_begin - len(begin)], end, "boolean" in python, "array" in python, separators)


def _find_value(text: str, start: int, value: Any) -> _Written | None:
    """The value's place in any of the ways in which templates write it."""
    forms: dict[str, Literal["json", "compact", "python"]]
    forms = {str(value): "python", json.dumps(value, separators=COMPACT): "compact", json.dumps(value): "json"}
    forms = {value: "json"} if isinstance(value, str) else forms
    found = sorted((index, form) for form in forms if (index := text.find(form, start)) >= 0)
    if not found or found[0][0] - start > 60:
        return None
    index, form = found[0]
    return _Written(text[start:index], index + len(form), forms[form])


def _split_lead(lead: str) -> tuple[str, str]:
    """What ends a parameter's name, and what begins its value: a further tag, and the blanks before it."""
    at = lead.rfind("<")
    if at <= 0:
        return lead, ""
    name_end = lead[:at].rstrip()
    return name_end, lead[len(name_end) :]

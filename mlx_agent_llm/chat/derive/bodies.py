"""One call within a rendered turn: where it stands, and how its name and its arguments are written."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mlx_agent_llm.chat.derive.probes import IDS, Call
from mlx_agent_llm.chat.derive.tags import find_tags
from mlx_agent_llm.chat.reply.arguments.literal_arguments import KeywordArguments, Literals
from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.calls import JSONArguments, JSONCall, NamedCall
from mlx_agent_llm.request.constraints import SEPARATORS

_DECODER = json.JSONDecoder()
KEYWORDS = KeywordArguments(Literals(quotes=('"', "'"), has_escapes=True, keys_are_quoted=True))


class Located(NamedTuple):
    """A call in a text: how it is written, and the indexes where it begins and ends."""

    body: NamedCall | JSONCall
    begin: int
    end: int


def locate(text: str, call: Call, start: int = 0) -> Located | None:
    """The call of this name and these arguments from `start` on; None where it is written in no way that is known."""
    name, arguments = call
    found = text.find(name, start)
    if found < 0:
        return None
    return _json_call(text, call, start) or _named_call(text, call, found) or _tagged_call(text, name, arguments, found)


def with_id_places(text: str) -> str:
    """A text with places for the ids of calls."""
    for call_id in IDS:
        text = text.replace(call_id, "{id}")
    return text


def _json_call(text: str, call: Call, start: int) -> Located | None:
    """A JSON object with the name and the arguments."""
    for begin, end, value in _objects(text, start):
        keys = {key for key, item in value.items() if item == call[0]}, {k for k, v in value.items() if v == call[1]}
        if len(keys[0]) != 1 or len(keys[1]) != 1:
            continue
        (name_key,), (arguments_key,) = keys
        others = [key for key in value if key not in (name_key, arguments_key)]
        order = list(value)
        numbers = [key for key in others if order.index(key) < order.index(name_key) and _is_number(value[key])]
        ids = [key for key in others if value[key] in IDS and order.index(key) > order.index(arguments_key)]
        if set(others) != {*numbers, *ids} or len(others) > 1 or order.index(name_key) > order.index(arguments_key):
            return None
        written = text[begin:end]
        comma = ", " if f', "{arguments_key}"' in written else ","
        colon = ": " if f'"{name_key}": ' in written else ":"
        spacing = (comma, colon), _separators(written, call[1])
        body = JSONCall(name_key, arguments_key, next(iter(numbers), None), next(iter(ids), None), *spacing)
        return Located(body, begin, end)
    return None


def _named_call(text: str, call: Call, found: int) -> Located | None:
    """The name, and a JSON object or keyword arguments."""
    name, arguments = call
    after = found + len(name)
    if text.startswith("(", after) and text.startswith(f"({next(iter(arguments))}=", after):
        end = text.find(")", text.rfind(_last_word(arguments)))
        return Located(NamedCall("", KEYWORDS), found, end + 1) if end >= 0 else None
    for begin, end, value in _objects(text, after):
        if value == arguments:
            style = JSONArguments(_separators(text[begin:end], value))
            return Located(NamedCall(_with_places(text[after:begin]), style), found, end)
    return None


def _tagged_call(text: str, name: str, arguments: Mapping[str, Any], found: int) -> Located | None:
    """The name, and parameters between tags."""
    tags = find_tags(text[found + len(name) :], arguments)
    if tags is None:
        return None
    begin = found + len(name)
    style = TaggedArguments(tags.tags, tags.has_constants, tags.has_structures, tags.separators)
    body = NamedCall(_with_places(tags.before), style)
    return Located(body, found, begin + tags.end)


def _objects(text: str, start: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The JSON objects that begin at any brace from `start` on."""
    for brace in re.finditer(r"\{", text[start:]):
        begin = start + brace.start()
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except ValueError:
            continue
        yield begin, end, value


def _separators(text: str, value: Any) -> tuple[str, str]:
    """What stands between the members of a JSON value and after their names; the usual ones where that differs."""
    for comma, colon, is_ascii in itertools.product((", ", ","), (": ", ":"), (False, True)):
        if json.dumps(value, separators=(comma, colon), ensure_ascii=is_ascii) in text:
            return comma, colon
    return SEPARATORS


def _with_places(between: str) -> str:
    """What stands after a name, with places for the number and the id of a call."""
    return re.sub(r"(?<![\w.])[0-9](?![\w.])", "{index}", with_id_places(between))


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and value.isdigit()


def _last_word(arguments: Mapping[str, Any]) -> str:
    words: list[str] = re.findall(r"\w{3,}", json.dumps(arguments))
    return words[-1]

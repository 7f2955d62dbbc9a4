"""JSON as it stands in a reply: where an object ends, whatever markers and brackets its strings hold."""

from __future__ import annotations

import json
import re
from typing import Any

from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces

_NOT_JSON = re.compile(r"[^\s{}\[\],:\"0-9A-Za-z+.-]")  # what no JSON has outside its strings


def read_json_object(cursor: Cursor, depth: int = 0) -> Pieces[None]:
    """Yield the text of an object as it comes; with depth=1 what is left of one that was begun.

    A BrokenCallError where the text cannot be JSON; otherwise nothing but brackets and strings is looked at.
    """
    in_string = escaped = False
    while True:
        for end in range(cursor.position, len(cursor.text)):
            char = cursor.text[end]
            if in_string:
                in_string = escaped or char != '"'
                escaped = char == "\\" and not escaped
            elif _NOT_JSON.match(char) or (depth == 0 and char != "{"):
                raise BrokenCallError(f"the arguments are not JSON: {char!r} stands outside of a string")
            elif char == '"':
                in_string = True
            else:
                depth += (char in "{[") - (char in "}]")
            if depth == 0:
                yield cursor.take(end + 1)
                return
        if cursor.position < len(cursor.text):
            yield cursor.take(len(cursor.text))
        if cursor.is_ended:
            cursor.has_run_out = True
            raise BrokenCallError("the JSON does not end")
        yield None


def load_json(text: str) -> Any:
    """The value of a JSON text; a BrokenCallError for what is none, NaN and Infinity among it."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BrokenCallError(f"the arguments are not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

"""Prompts in which what users wrote is text: a control token that is spelled out in a message does not become one.

Each such text is broken up by a private-use character before the template is rendered, and the tokens of that
character are taken out of the prompt afterwards. So it works with every template and every tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from mlx_agent_llm.errors import RequestError

Encode = Callable[[str], list[int]]
_MARKS = ("\ue000", "\uf8f0", "\U000f0000", "\U00100000")


class Shield:
    """Breaks up the names of control tokens in content, by a mark that is nowhere else in it."""

    def __init__(self, names: Collection[str], content: Any) -> None:
        longest_first = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        texts = "".join(_texts(content))
        self._marks = [mark for mark in _MARKS if mark not in texts] if self._names.search(texts) else []
        self.is_needed = self._names.search(texts) is not None
        if self.is_needed and not self._marks:
            raise RequestError(f"messages must not hold control tokens together with all of {_MARKS}")

    def encode(self, render: Callable[[Callable[[Any], Any]], str], encode: Encode) -> tuple[str, list[int]]:
        """The rendered text and its tokens; `render` applies a function to all content and renders it."""
        if not self.is_needed:
            text = render(lambda value: value)
            return text, encode(text)
        for mark in self._marks:
            text = render(partial(self._broken_up, mark))
            token_ids = _without_mark(text, mark, encode)
            if token_ids is not None:
                return text.replace(mark, ""), token_ids
        raise RequestError("messages hold the name of a control token, which this tokenizer cannot encode as text")

    def _broken_up(self, mark: str, value: Any) -> Any:
        if isinstance(value, str):
            while (found := self._names.search(value)) is not None:
                value = value[: found.start() + 1] + mark + value[found.start() + 1 :]
            return value
        if isinstance(value, Mapping):
            return {self._broken_up(mark, key): self._broken_up(mark, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._broken_up(mark, item) for item in value]
        return value


def _texts(content: Any) -> list[str]:
    """All texts within content."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping):
        return [text for pair in content.items() for item in pair for text in _texts(item)]
    return [text for item in content for text in _texts(item)] if isinstance(content, list | tuple) else []


def _without_mark(text: str, mark: str, encode: Encode) -> list[int] | None:
    """The tokens of a text without those of the marks; None where a mark is not a run of tokens of its own."""
    before, between = encode("a"), encode(f"a{mark}a")
    run = between[len(before) : -1]
    if not run or between[: len(before)] != before:
        return None
    kept: list[int] = []
    token_ids = encode(text)
    num_found = index = 0
    while index < len(token_ids):
        is_mark = token_ids[index : index + len(run)] == run
        num_found += is_mark
        kept += [] if is_mark else token_ids[index : index + 1]
        index += len(run) if is_mark else 1
    return kept if num_found == text.count(mark) else None

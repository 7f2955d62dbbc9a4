"""What a chat template does with tools and calls, found by rendering a small chat with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from mlx_agent_llm.chat.families import ToolFormat, find_tool_format
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import ToolCall
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.chat.turns import Arguments, tools_as_data, turns_as_data, with_tools
from mlx_agent_llm.errors import RequestError

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

_TOOL = Tool("probe", "Probes.", {"type": "object", "properties": {"sample": {"type": "string"}}})
_CALL = ToolCall("probe0000", "probe", {"sample": "taken"}, '{"sample": "taken"}')


class Abilities(NamedTuple):
    """Whether a template shows tools, and as what it takes the arguments of calls; None where it shows no calls."""

    tools: bool = False
    calls: Arguments | None = None


_known: WeakKeyDictionary[Tokenizer, dict[str, Abilities]] = WeakKeyDictionary()


def abilities_of(tokenizer: Tokenizer, tool_format: ToolFormat) -> Abilities:
    """What the tokenizer's template does in this format; nothing, if the template is of another one."""
    known = _known.setdefault(tokenizer, {})
    if tool_format.name not in known:
        known[tool_format.name] = _find(tokenizer, tool_format)
    return known[tool_format.name]


def _find(tokenizer: Tokenizer, tool_format: ToolFormat) -> Abilities:
    if not tool_format.signs or find_tool_format(tokenizer).name != tool_format.name:
        return Abilities()
    turns: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    shown = _render(tokenizer, with_tools(tool_format, turns, [_TOOL]), tools_as_data(tool_format, [_TOOL]))
    kinds: tuple[Arguments, ...] = ("objects", "texts")
    calls = next((kind for kind in kinds if _shows_calls(tokenizer, tool_format, turns, kind)), None)
    return Abilities(_TOOL.name in shown and "sample" in shown, calls)


def _shows_calls(tokenizer: Tokenizer, tool_format: ToolFormat, turns: list[dict[str, Any]], kind: Arguments) -> bool:
    history = [Message("assistant", "", (_CALL,)), Message("tool", "gone", tool_call_id=_CALL.id)]
    text = _render(tokenizer, [*turns, *turns_as_data(tool_format, history, kind), *turns], None)
    as_python, as_text = "{'sample'", json.dumps(_CALL.arguments_json)
    is_mangled = as_python in text or as_text in text
    return all(part in text for part in (_CALL.name, "sample", "taken", "gone")) and not is_mangled


def _render(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tools=tools)
    except RequestError:
        return ""

"""What a chat template does with tools and calls, found by rendering a small chat with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from mlx_agent_llm.chat.families import ToolFormat, tool_format
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import ToolCall
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.errors import RequestError

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

Arguments = Literal["objects", "texts"]
_TOOL = Tool("probe", "Probes.", {"type": "object", "properties": {"sample": {"type": "string"}}})
_CALL = ToolCall("probe0000", "probe", {"sample": "taken"}, '{"sample": "taken"}')


class Abilities(NamedTuple):
    """Whether a template shows tools, and as what it takes the arguments of calls; None where it shows no calls."""

    tools: bool = False
    calls: Arguments | None = None


_known: WeakKeyDictionary[Tokenizer, dict[str, Abilities]] = WeakKeyDictionary()


def abilities_of(tokenizer: Tokenizer, written: ToolFormat) -> Abilities:
    """Return what the tokenizer's template does in this format; nothing, if the template is of another one."""
    known = _known.setdefault(tokenizer, {})
    if written.name not in known:
        known[written.name] = _find(tokenizer, written)
    return known[written.name]


def _find(tokenizer: Tokenizer, written: ToolFormat) -> Abilities:
    if not written.signs or tool_format(tokenizer).name != written.name:
        return Abilities()
    turns: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    shown = _render(tokenizer, written.with_tools(turns, [_TOOL]), written.template_tools([_TOOL]))
    kinds: tuple[Arguments, ...] = ("objects", "texts")
    calls = next((kind for kind in kinds if _shows_calls(tokenizer, written, turns, kind)), None)
    return Abilities(_TOOL.name in shown and "sample" in shown, calls)


def _shows_calls(tokenizer: Tokenizer, written: ToolFormat, turns: list[dict[str, Any]], kind: Arguments) -> bool:
    ids, names = {_CALL.id: written.template_id(_CALL, 0)}, {_CALL.id: _CALL.name}
    history = [Message("assistant", "", (_CALL,)), Message("tool", "gone", tool_call_id=_CALL.id)]
    messages = [written.template_message(turn, ids, names, kind == "texts") for turn in history]
    text = _render(tokenizer, [*turns, *messages, *turns], None)
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

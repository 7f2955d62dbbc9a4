"""Calls as a real template renders them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlx_agent_llm.chat import FoundFormat
from mlx_agent_llm.chat.derive.probes import Probe
from mlx_agent_llm.chat.found_format import _ways
from mlx_agent_llm.models.tokenizer import Tokenizer
from tests.support.tool_conversations import TOOLS, as_openai


def rendered_calls(tokenizer: Tokenizer, found: FoundFormat, calls: list[tuple[str, dict[str, Any]]]) -> str | None:
    """What the template renders for these calls, as the probes cut it; None where it renders none."""
    if found.abilities.calls is None:
        return None
    for way in _ways(tokenizer, found.tool_format):
        if way.one and way.arguments == found.abilities.calls:
            return replace(way, probe=Probe(calls[0], tuple(map(as_openai, TOOLS)))).native(calls)
    raise AssertionError("the template renders calls, and none of these")

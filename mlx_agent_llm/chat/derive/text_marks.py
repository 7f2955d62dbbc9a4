"""The marks around an assistant's text, of a template that writes some."""

from __future__ import annotations

from typing import NamedTuple

from mlx_agent_llm.chat.derive.probes import Probing
from mlx_agent_llm.chat.derive.units import is_mark
from mlx_agent_llm.chat.reply.syntax import Reasoning


class TextMarks(NamedTuple):
    """What stands before a text and after it; "" for nothing."""

    begin: str
    end: str


def derive_text_marks(probing: Probing, reasoning: Reasoning | None) -> TextMarks:
    """The marks that are no part of the reasoning before the text."""
    lead = probing.text_lead
    if reasoning is not None:
        lead = lead.rpartition(reasoning.end)[2].removeprefix(reasoning.bridge)
    begin = lead.strip()
    return TextMarks(begin if is_mark(begin) else "", probing.text_end)

"""The marks around what a model thinks, and the key of a turn that holds it, as a template shows them."""

from __future__ import annotations

from typing import NamedTuple

from mlx_agent_llm.chat.derive.probes import ANSWER, THOUGHT, Probing
from mlx_agent_llm.chat.derive.units import is_mark, units
from mlx_agent_llm.chat.reply.syntax import Reasoning

KEYS = ("reasoning_content", "reasoning", "thinking")


class ShownReasoning(NamedTuple):
    """The key whose text a template shows, and the marks around it, if they are one tag each."""

    key: str
    marks: Reasoning | None


def find_reasoning(probing: Probing) -> ShownReasoning | None:
    """How the reasoning of the last turn is shown; None where it is not."""
    for key in KEYS:
        turn = probing.text_turn(ANSWER, **{key: THOUGHT})
        if THOUGHT in turn and ANSWER in turn:
            return ShownReasoning(key, _marks(turn))
    return None


def _marks(turn: str) -> Reasoning | None:
    before, _, after = turn.partition(THOUGHT)
    begins = [unit for unit in units(before) if unit.strip()]
    ends = [unit for unit in units(after.partition(ANSWER)[0]) if unit.strip()]
    if len(ends) != 1 or not is_mark(ends[0]) or not begins or not is_mark(begins[-1]) or ends[0] == begins[-1]:
        return None
    return Reasoning(begins[-1], ends[0], sign=begins[-1])

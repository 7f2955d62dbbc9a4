"""The marks around what a model thinks, and the key of a turn that holds it, as a template shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlx_agent_llm.chat.derive.probes import ANSWER, THOUGHT, Probing
from mlx_agent_llm.chat.derive.units import is_mark, units
from mlx_agent_llm.chat.reply.syntax import Reasoning

KEYS = ("reasoning_content", "reasoning", "thinking")


class ShownReasoning(NamedTuple):
    """The key whose text a template shows, None where it shows none, and the marks around it, where they are known."""

    key: str | None
    marks: Reasoning | None


def find_reasoning(probing: Probing, known: Sequence[Reasoning]) -> ShownReasoning:
    """How the reasoning of the last turn is shown; marks are known ones, or else one tag each."""
    for key in KEYS:
        turn = probing.text_turn(ANSWER, **{key: THOUGHT})
        if THOUGHT in turn and ANSWER in turn:
            return ShownReasoning(key, _known_marks(probing.prompt_end + turn, known) or _marks(turn))
    return ShownReasoning(None, _known_marks(probing.prompt_end, known))


def _known_marks(shown: str, known: Sequence[Reasoning]) -> Reasoning | None:
    return next((marks for marks in known if marks.begin in shown and marks.end in shown), None)


def _marks(turn: str) -> Reasoning | None:
    before, _, after = turn.partition(THOUGHT)
    begins = [unit for unit in units(before) if unit.strip()]
    ends = [unit for unit in units(after.partition(ANSWER)[0]) if unit.strip()]
    if len(ends) != 1 or not is_mark(ends[0]) or not begins or not is_mark(begins[-1]) or ends[0] == begins[-1]:
        return None
    return Reasoning(begins[-1], ends[0], sign=begins[-1])

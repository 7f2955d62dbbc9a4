"""Questions about languages and automata that tests alone ask."""

from __future__ import annotations

from mlx_agent_llm.languages.regular import Automaton, Language, complement, intersection


def is_subset(left: Language, right: Language) -> bool:
    """Whether every text of the left language is one of the right."""
    return intersection(left, complement(right)).is_empty()


def accepts(automaton: Automaton, text: str) -> bool:
    """Whether the automaton accepts a text."""
    state: int | None = 0
    for char in text:
        assert state is not None
        state = next((target for chars, target in automaton.transitions[state] if char in chars), None)
        if state is None:
            return False
    return state in automaton.accepting

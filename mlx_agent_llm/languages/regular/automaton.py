"""Deterministic finite automata over characters, made from anything that has derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_STEPS_PER_STATE = 12

Row = tuple[tuple[CharSet, int], ...]


@dataclass(frozen=True)
class Automaton:
    """States 0..n-1, of which 0 starts; `transitions[state]` are disjoint sets of characters, each with its target.

    A character that no set holds leads nowhere. Every state but 0 is on a way to an accepting one.
    """

    accepting: frozenset[int]
    transitions: tuple[Row, ...]


class Derivable(Protocol):
    """A language that its derivatives tell all about; equal ones are one object."""

    @property
    def is_nullable(self) -> bool:
        """Whether it holds the empty text."""

    @property
    def children(self) -> tuple[object, ...]:
        """What it is made from: the more, the longer its derivatives take."""

    def next_classes(self) -> tuple[CharSet, ...]:
        """Disjoint sets, together all characters, within which derivatives are the same."""

    def derive(self, char: str) -> Self:
        """The language of what may follow a character."""


def build_automaton(start: Derivable, max_states: int) -> Automaton | None:
    """The automaton of a language, or None when it needs more states, or the search for it takes too long.

    Its states are the derivatives (Brzozowski 1964), those that behave the same merged where that is cheap to see.
    """
    states = {start: 0}
    rows: list[Row] = []
    num_steps = 0
    for state in (queue := [start]):
        row = []
        for chars in state.next_classes():
            target = state.derive(chars.example())
            if target not in states:
                num_steps += 1 + len(target.children)
                if num_steps > MAX_STEPS_PER_STATE * max_states:
                    return None
                states[target] = len(states)
                queue.append(target)
            row.append((chars, states[target]))
        rows.append(tuple(row))
    accepting = {index for index, state in enumerate(queue) if state.is_nullable}
    return _merge(*_prune(accepting, rows), max_states)


def _prune(accepting: set[int], rows: list[Row]) -> tuple[set[int], list[Row]]:
    """Leave out every state from which nothing is accepted, but state 0."""
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for _, target in row:
            sources[target].append(state)
    live = set(accepting)
    for state in (queue := list(accepting)):
        fresh = set(sources[state]) - live
        live |= fresh
        queue += fresh
    kept = sorted(live | {0})
    number = {state: index for index, state in enumerate(kept)}
    return (
        {number[state] for state in accepting},
        [tuple((chars, number[target]) for chars, target in rows[state] if target in live) for state in kept],
    )


def _merge(accepting: set[int], rows: list[Row], max_states: int) -> Automaton | None:
    """Merge states with equal rows until there are none; from the last to the first, where one pass does nearly all."""
    merged = list(range(len(rows)))  # the state that stands for each one
    kept = merged[::-1]
    num_before = len(kept) + 1
    while len(kept) < num_before:
        seen: dict[tuple[bool, frozenset[tuple[int, CharSet]]], int] = {}
        for state in kept:
            joined = _joined(rows[state], merged)
            loop = joined.pop(state, CharSet())
            merged[state] = seen.setdefault((state in accepting, frozenset([*joined.items(), (-1, loop)])), state)
        merged = [merged[state] for state in merged]
        num_before, kept = len(kept), list(seen.values())
    kept.sort(key=lambda state: (state != merged[0], state))
    if len(kept) > max_states:
        return None
    number = {state: index for index, state in enumerate(kept)}
    return Automaton(
        frozenset(number[state] for state in kept if state in accepting),
        tuple(
            tuple((chars, number[target]) for target, chars in _joined(rows[state], merged).items()) for state in kept
        ),
    )


def _joined(row: Row, merged: list[int]) -> dict[int, CharSet]:
    """The characters that lead to each target."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for chars, target in row:
        ranges.setdefault(merged[target], []).extend(chars.ranges)
    return {target: CharSet(found) for target, found in ranges.items()}

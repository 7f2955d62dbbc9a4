"""Where a reply stands in its block of reasoning, and a bound on how long that may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.request import CompiledGrammar, Matcher

Thinking = Literal["none", "auto", "open"]
"""Whether a reply begins with a block of reasoning: never, as the model wants to, or the prompt has opened it."""


@dataclass(frozen=True)
class Block:
    """The marks around reasoning, as bytes."""

    begin: bytes
    end: bytes


class ThinkingState(NamedTuple):
    """How far a reply has come: `seen` is what may still be a part of a mark, num_tokens those of the block so far."""

    stage: Literal["before", "inside", "after"]
    seen: bytes = b""
    num_tokens: int = 0


class ThinkingTracker:
    """Follows a reply token by token; states are values, so that tokens can be taken back."""

    def __init__(self, block: Block, thinking: Thinking, text_of: Callable[[int], bytes]) -> None:
        self._block = block
        self._text_of = text_of
        stages: dict[Thinking, Literal["before", "inside", "after"]]
        stages = {"none": "after", "auto": "before", "open": "inside"}
        self.start = ThinkingState(stages[thinking])

    def advance(self, state: ThinkingState, token_ids: Sequence[int]) -> ThinkingState:
        """The state after further tokens; the marks count as tokens of the block."""
        for token_id in token_ids:
            if state.stage == "after":
                break
            state = self._step(state, self._text_of(token_id))
        return state

    def _step(self, state: ThinkingState, text: bytes) -> ThinkingState:
        seen, num_tokens = state.seen + text, state.num_tokens + 1
        if state.stage == "before":
            begun = seen.lstrip()
            if not begun.startswith(self._block.begin):
                is_open = self._block.begin.startswith(begun)
                return ThinkingState("before", seen, num_tokens) if is_open else ThinkingState("after")
            seen = begun.removeprefix(self._block.begin)
        if self._block.end in seen:
            return ThinkingState("after", b"", num_tokens)
        return ThinkingState("inside", seen[-len(self._block.end) :], num_tokens)


class ReasoningLimit:
    """Ends a reply's reasoning after max_tokens tokens: then the mask leaves nothing but the tokens of its end mark."""

    def __init__(self, tracker: ThinkingTracker, end: Sequence[int], max_tokens: int) -> None:
        self.tracker = tracker
        self.end = tuple(end)
        self.max_tokens = max_tokens

    def applied_to(
        self, grammar: Future[CompiledGrammar] | None
    ) -> tuple[Matcher | None, Future[CompiledGrammar] | None]:
        """The matcher of a free reply, or the grammar of a constrained one, with this limit."""
        if grammar is None:
            return LimitedMatcher(self, None), None
        limited: Future[CompiledGrammar] = Future()

        def pass_on(done: Future[CompiledGrammar]) -> None:
            try:
                limited.set_result(_LimitedGrammar(self, done.result()))
            except BaseException as fault:
                limited.set_exception(fault)

        grammar.add_done_callback(pass_on)
        return None, limited


class _LimitedGrammar:
    def __init__(self, limit: ReasoningLimit, grammar: CompiledGrammar) -> None:
        self._limit = limit
        self._grammar = grammar

    def matcher(self) -> Matcher:
        return LimitedMatcher(self._limit, self._grammar.matcher())


class LimitedMatcher:
    """Implements the engine's Matcher: the mask of another one, or all tokens, but the end mark when it is due."""

    def __init__(self, limit: ReasoningLimit, matcher: Matcher | None) -> None:
        self._limit = limit
        self._matcher = matcher
        # After each token; with it, how many tokens of the end mark are written.
        self._states = [(limit.tracker.start, 0)]

    def accept(self, token_id: int) -> bool:
        """Advance by one token; False when the end mark is due, or the other matcher does not allow it."""
        due = self._due_token()
        if due not in (None, token_id) or (self._matcher is not None and not self._matcher.accept(token_id)):
            return False
        state, num_written = self._states[-1]
        state = self._limit.tracker.advance(state, [token_id])
        self._states.append((state, 0 if due is None else num_written + 1))
        return True

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        """Write the tokens that may follow as row `row` of a (rows, ceil(vocab / 32)) bitmask."""
        due = self._due_token()
        if due is not None:
            mask[row] = 0
            mask[row : row + 1].view(np.uint32)[0, due // 32] = 1 << (due % 32)
        elif self._matcher is not None:
            self._matcher.fill_mask(mask, row)
        else:
            mask[row] = -1

    def rollback(self, num_tokens: int) -> None:
        """Take back the last accepted tokens."""
        if self._matcher is not None:
            self._matcher.rollback(num_tokens)
        del self._states[len(self._states) - num_tokens :]

    def jump_forward(self) -> bytes:
        """What the text has to go on with, by the other matcher."""
        return b"" if self._matcher is None or self._due_token() is not None else self._matcher.jump_forward()

    @property
    def is_finished(self) -> bool:
        """Whether the other matcher is finished."""
        return self._matcher is not None and self._matcher.is_finished

    def _due_token(self) -> int | None:
        state, num_written = self._states[-1]
        if state.stage != "inside" or state.num_tokens < self._limit.max_tokens:
            return None
        if num_written == 0 and not _is_whole(state.seen):
            return None  # the mark cannot stand within a character
        return self._limit.end[num_written] if num_written < len(self._limit.end) else None


def _is_whole(text: bytes) -> bool:
    """Whether a text does not end within a character; it may begin within one."""
    for length in (1, 2, 3):
        lead = text[-length] if length <= len(text) else 0
        if lead & 0xC0 != 0x80:
            return not (lead & 0x80) or length == {0xC0: 2, 0xD0: 2, 0xE0: 3, 0xF0: 4}.get(lead & 0xF0, 1)
    return True

"""Speculation: which requests get drafts, from where, and how long they are.

A step computes a draft's tokens beside the others, and what is sampled after each says whether the next was right
(output/verification.py). So a draft changes no token; it costs its rows, and that the tokens before it have to be read
before the step is scheduled. "auto" drafts what is worth that: the chance that a token is right, of what was right in
its request so far, against the measured cost of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from weakref import WeakKeyDictionary

from mlx_agent_llm.config import SpeculationSetting
from mlx_agent_llm.core.schedule.jump_forward import JumpForward
from mlx_agent_llm.core.schedule.speculation.draft_lengths import draft_lengths, trial_lengths
from mlx_agent_llm.core.schedule.speculation.draft_model import DraftModel
from mlx_agent_llm.core.schedule.speculation.drafter import Drafter
from mlx_agent_llm.core.schedule.speculation.row_costs import RowCosts, StepTime
from mlx_agent_llm.core.schedule.speculation.text_drafter import TextDrafter
from mlx_agent_llm.request import NO_DRAFT, Draft, Request


class Speculation:
    """Gives running requests drafts; end_token_ids: that end a request's output."""

    def __init__(
        self,
        setting: SpeculationSetting,
        jumps: JumpForward,
        end_token_ids: Callable[[Request], Collection[int]],
        vocab_size: int,
        draft_model: DraftModel | None = None,
    ) -> None:
        self.setting = setting
        self._jumps = jumps
        self._end_token_ids = end_token_ids
        self._vocab_size = vocab_size
        self.make_drafter: Callable[[Request], Drafter] = TextDrafter if draft_model is None else draft_model.drafter
        self._costs = RowCosts()
        self._drafters = WeakKeyDictionary[Request, Drafter]()

    def follow(self, requests: Sequence[Request]) -> None:
        """Take in what requests have got, which may be done while a step is computed.

        Where so many streams would draft nothing whatever they say, that can wait.
        """
        if self.setting == "off" or self._is_hopeless(len(requests)):
            return
        for request in requests:
            if not request.is_finished:
                self._drafter(request).follow()

    def needs_tokens(self, sampled: Sequence[Request], running: Sequence[Request]) -> bool:
        """Whether the tokens in flight have to be read before the next step is scheduled.

        They have to after a draft, and before one that is worth it if the token in flight is what would begin it.
        """
        if self.setting == "off":
            return False
        if any(request.draft.token_ids for request in sampled):
            return True
        return any(self._allot(_streams(running), are_read=False))

    def give(
        self,
        running: Sequence[Request],
        force: Callable[[Request, list[int]], None],
        fail: Callable[[Request, Exception], None],
    ) -> None:
        """Let `force` give each stream what its grammar forces, and draft what may follow; all tokens were read.

        `fail` is told of a request whose matcher breaks.
        """
        for request in _streams(running):
            try:
                if forced := self._jumps.find(request):
                    force(request, forced)
            except Exception as fault:  # the fault is this request's alone
                fail(request, fault)
        streams = _streams(running)
        self.follow(streams)
        for request, count in zip(streams, self._allot(streams, are_read=True), strict=True):
            try:
                request.draft = self._draft(request, count) if count else NO_DRAFT
            except Exception as fault:
                fail(request, fault)

    def observe(self, step: StepTime) -> None:
        """Learn from a step without prompts how long it took."""
        if self.setting == "auto":
            self._costs.observe(step)

    def close(self) -> None:
        """Let go of all drafters, and of the model that they use."""
        self.make_drafter = TextDrafter
        self._drafters.clear()

    def _drafter(self, request: Request) -> Drafter:
        drafter = self._drafters.get(request)
        if drafter is None:
            drafter = self._drafters[request] = self.make_drafter(request)
        return drafter

    def _allot(self, requests: Sequence[Request], *, are_read: bool) -> list[int]:
        """How many tokens each request drafts."""
        num_streams = len(requests)
        if isinstance(self.setting, int):
            return [self.setting] * num_streams
        if not self._costs.is_tried(num_streams) or self._is_hopeless(num_streams):
            return [0] * num_streams
        outlooks = [self._drafter(request).outlook(is_read=are_read) for request in requests]
        cost = self._costs.of(num_streams)
        if cost is None:
            return trial_lengths(outlooks)
        return draft_lengths(outlooks, cost, are_read=are_read)

    def _is_hopeless(self, num_streams: int) -> bool:
        """Whether not even what is certainly right would be worth its row."""
        cost = self._costs.of(num_streams)
        return cost is not None and cost.row * num_streams >= cost.fixed

    def _draft(self, request: Request, count: int) -> Draft:
        """What its drafter says, as far as output and grammar may go on like that."""
        most = request.max_num_tokens - request.num_tokens - 1
        count = min(count, max(most, 0))
        ends = self._end_token_ids(request)
        said = self._drafter(request).tokens(count)[:count]
        token_ids = list(takewhile(lambda one: 0 <= one < self._vocab_size and one not in ends, said))
        if request.matcher is None:
            return Draft(tuple(token_ids), (False,) * len(token_ids))
        return self._within_grammar(request, token_ids).cut(most)

    def _within_grammar(self, request: Request, token_ids: Sequence[int]) -> Draft:
        """The tokens that the grammar allows, with those that it forces, up to the last after which it goes on."""
        matcher = request.matcher
        assert matcher is not None
        found, is_forced = list[int](), list[bool]()
        while len(found) < len(token_ids) and list(token_ids[: len(found)]) == found:
            run = [token_ids[len(found)]]
            if not matcher.accept(run[0]):
                break
            if not matcher.is_finished:
                run += self._jumps.find(request, [*found, *run])
                for token_id in run[1:]:
                    matcher.accept(token_id)
            if matcher.is_finished:
                matcher.rollback(len(run))
                break
            found += run
            is_forced += [False] + [True] * (len(run) - 1)
        matcher.rollback(len(found))
        return Draft(tuple(found), tuple(is_forced))


def _streams(running: Iterable[Request]) -> list[Request]:
    """Those that have nothing left to compute but what follows their output."""
    return [one for one in running if one.is_decoding and one.grammar is None and not one.is_finished]

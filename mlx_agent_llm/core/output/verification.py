"""Which samples count: those of a draft's tokens as far as the draft is what was sampled, and the one after them.

A sample is a function of the request's seed, its position and the tokens before it. So where these are what the draft
says, it is the very token that would have been sampled without one (speculative sampling needs no acceptance by chance
then: Leviathan et al. 2023 accept with a probability because their draws are not tied to positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlx_agent_llm.request import Draft, Request


class Verdict(NamedTuple):
    """What a step's samples say of a request: its next tokens come from rows [begin, begin + num_rows).

    After each sampled one come the tokens that its grammar forces. num_right: tokens of the draft that were right.
    """

    request: Request
    begin: int
    num_rows: int
    num_right: int


def verify(requests: Sequence[Request], token_ids: Sequence[int]) -> list[Verdict]:
    """A verdict for each request of S sampled rows, by their (S,) tokens; the rows of a draft follow each other."""
    verdicts: list[Verdict] = []
    begin = 0
    while begin < len(requests):
        request = requests[begin]
        if not request.draft.token_ids:  # as nearly always, and for each row of a step
            verdicts.append(Verdict(request, begin, 1, 0))
            begin += 1
            continue
        places = request.draft.places
        num_rows, num_right = _num_right(request.draft, places, token_ids[begin : begin + len(places)])
        verdicts.append(Verdict(request, begin, num_rows, num_right))
        begin += len(places)
    return verdicts


def forced_after(draft: Draft, place: int) -> Sequence[int]:
    """The tokens that a grammar forces after `place` tokens of a draft and the next, which was sampled."""
    end = next((i for i in range(place + 1, len(draft.token_ids)) if not draft.is_forced[i]), len(draft.token_ids))
    return draft.token_ids[place + 1 : end]


def _num_right(draft: Draft, places: Sequence[int], token_ids: Sequence[int]) -> tuple[int, int]:
    """How many rows count, and how many tokens of the draft."""
    for row, place in enumerate(places[:-1]):
        if token_ids[row] != draft.token_ids[place]:
            return row + 1, place
    return len(places), len(draft.token_ids)

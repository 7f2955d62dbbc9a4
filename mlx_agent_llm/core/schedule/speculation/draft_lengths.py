"""How many tokens each stream drafts: as many as make tokens a second more, by chances and by what rows cost."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from itertools import islice

from mlx_agent_llm.core.schedule.speculation.drafter import Outlook
from mlx_agent_llm.core.schedule.speculation.row_costs import Cost

_MAX_TOKENS = 32
_MIN_GAIN = 1.1  # what is hardly worth it by what was measured may be a loss
_NUM_TRIED = 4  # tokens, while the cost of rows is unknown...
_MIN_CHANCE_TRIED = 0.3  # ...and each with such a chance


def draft_lengths(outlooks: Sequence[Outlook], cost: Cost, *, are_read: bool) -> list[int]:
    """How many tokens each stream drafts; are_read: whether the tokens before them are read already.

    Where they are not, the next step has no overlap with this one for the drafts, and the one after them neither.
    """
    counts, num_streams = [0] * len(outlooks), len(outlooks)
    no_overlap = cost.fixed - cost.alone
    num_expected, seconds = float(num_streams), cost.fixed + (0.0 if are_read else no_overlap)
    waiting = [(-next(outlook.chances, 0.0), index) for index, outlook in enumerate(outlooks)]
    heapify(waiting)
    while waiting:
        chance, index = -waiting[0][0], waiting[0][1]
        if chance * seconds <= num_expected * cost.row:  # fewer tokens a second with it than without
            break
        begin, chances = outlooks[index]
        counts[index] += 1
        num_expected, seconds = num_expected + begin * chance, seconds + begin * cost.row
        is_full = counts[index] == _MAX_TOKENS
        heapreplace(waiting, (0.0 if is_full else -next(chances, 0.0), index))
    is_worth_it = num_expected * cost.alone > _MIN_GAIN * num_streams * seconds
    return counts if is_worth_it else [0] * num_streams


def trial_lengths(outlooks: Sequence[Outlook]) -> list[int]:
    """How many tokens each stream drafts to find what rows cost: one stream alone, with the best chances."""
    counts = [
        sum(begin * chance >= _MIN_CHANCE_TRIED for chance in islice(chances, _NUM_TRIED))
        for begin, chances in outlooks
    ]
    chosen = max(range(len(counts)), key=counts.__getitem__)
    return [count if index == chosen else 0 for index, count in enumerate(counts)]

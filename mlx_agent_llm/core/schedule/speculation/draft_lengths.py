"""How many tokens each stream drafts: as many as make tokens a second more, by chances and by what rows cost."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from itertools import islice

from mlx_agent_llm.core.schedule.speculation.drafter import Outlook
from mlx_agent_llm.core.schedule.speculation.row_costs import Cost

_MAX_TOKENS = 32
_MIN_GAIN = 1.03  # what is hardly worth it by what was measured may be a loss
# While the cost of rows is unknown: as many tokens of one stream, each with such a chance. Fewer once steps with drafts
# were seen, the one in flight among them: it may be that rows are dear.
_TRIED = 4, 0.3
_NUM_TRIED_AGAIN = 2


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


def trial_lengths(outlooks: Sequence[Outlook], *, is_again: bool) -> list[int]:
    """How many tokens each stream drafts to find what rows cost: one of them, whose drafts are the most promising."""
    most, least = _TRIED
    counts = [sum(begin * chance >= least for chance in islice(chances, most)) for begin, chances in outlooks]
    chosen = max(range(len(counts)), key=counts.__getitem__)
    limit = _NUM_TRIED_AGAIN if is_again else most
    return [min(count, limit) if index == chosen else 0 for index, count in enumerate(counts)]

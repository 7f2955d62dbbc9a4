"""What the grammars allow next, as the bitmask that sampling waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.request import Request


def fill_masks(
    requests: Sequence[Request | None],
    places: Sequence[int],
    vocab_size: int,
    fail: Callable[[Request, Exception], None],
) -> npt.NDArray[np.int32] | None:
    """(S, ceil(V / 32)) bits, all ones where there is no grammar; None without any.

    places: of each row, how many tokens of its request's draft it takes to be right; a draft's rows follow each other.
    `fail` is told of a request whose matcher breaks, or allows nothing: fail closed.
    """
    constrained = [(row, one) for row, one in enumerate(requests) if one is not None and one.matcher is not None]
    if not constrained:
        return None
    bitmask = np.full((len(requests), -(-vocab_size // 32)), -1, dtype=np.int32)
    for row, request in constrained:
        if places[row] == 0:
            try:
                _fill_rows(bitmask, row, request)
            except Exception as fault:  # the fault is this request's alone
                fail(request, fault)
    return bitmask


def _fill_rows(bitmask: npt.NDArray[np.int32], row: int, request: Request) -> None:
    """Fill the rows of a request from its first one on, and leave its matcher where it is."""
    matcher, num_accepted = request.matcher, 0
    assert matcher is not None
    for place in request.draft.places:
        for token_id in request.draft.token_ids[num_accepted:place]:
            if not matcher.accept(token_id):
                raise GenerationError(f"the grammar rejected token {token_id} of its own draft")
        num_accepted = place
        matcher.fill_mask(bitmask, row)
        if not bitmask[row].any():
            raise GenerationError("the grammar allows no token here, although its text is not complete")
        row += 1
    if num_accepted:
        matcher.rollback(num_accepted)

"""What the grammars allow next, as the bitmask that sampling waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.request import Request


def fill_masks(
    requests: Sequence[Request | None], vocab_size: int, fail: Callable[[Request, Exception], None]
) -> npt.NDArray[np.int32] | None:
    """(S, ceil(V / 32)) bits, all ones where there is no grammar; None without any.

    `fail` is told of a request whose matcher breaks, or allows nothing: fail closed.
    """
    constrained = [(row, one) for row, one in enumerate(requests) if one is not None and one.matcher is not None]
    if not constrained:
        return None
    bitmask = np.full((len(requests), -(-vocab_size // 32)), -1, dtype=np.int32)
    for row, request in constrained:
        assert request.matcher is not None
        try:
            request.matcher.fill_mask(bitmask, row)
            if not bitmask[row].any():
                raise GenerationError("the grammar allows no token here, although its text is not complete")
        except Exception as fault:  # the fault is this request's alone
            fail(request, fault)
    return bitmask

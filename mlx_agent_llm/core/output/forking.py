"""What a fork takes over of its parent's output: its tokens, their text and their log-probabilities."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mlx_agent_llm.core.output.logprobs import closing_logprobs
from mlx_agent_llm.core.output.stopping import Stopping
from mlx_agent_llm.errors import GenerationError, RequestError
from mlx_agent_llm.request import Delta, Request, TokenLogprob


def replay(stopping: Stopping, request: Request, parent: Request | None) -> Delta:
    """Take what the parent has put out so far, up to what ends the request; None is a parent that has ended.

    Raises RequestError when the request cannot go on from there.
    """
    if parent is None:
        raise RequestError("the request to fork has ended: only one that waits or runs can be forked")
    token_ids = parent.token_ids[parent.num_prompt_tokens :]
    logprobs = _inherit_logprobs(request, parent) if token_ids else []
    request.first_token_at = time.perf_counter() if token_ids else None
    try:
        delta = stopping.advance_all(request, token_ids)
    except GenerationError as rejection:
        raise RequestError(f"the constraint of a fork must allow the output so far: {rejection}") from None
    if request.params.logprobs is None:
        return delta
    num_same = _num_equal(delta.token_ids, token_ids)  # the others close the text
    request.logprobs = logprobs[:num_same] + list(closing_logprobs(delta.token_ids[num_same:]))
    return delta._replace(logprobs=tuple(request.logprobs))


def _inherit_logprobs(request: Request, parent: Request) -> list[TokenLogprob]:
    """Those of the parent's output so far, with as many alternatives as the request asks for."""
    wanted, known = request.params.logprobs, parent.params.logprobs
    if wanted is None:
        return []
    if known is None or known < wanted:
        raise RequestError(f"logprobs={wanted} of a fork must be at most those of its parent, logprobs={known}")
    return [logprob._replace(top=logprob.top[:wanted]) for logprob in parent.logprobs]


def _num_equal(left: Sequence[int], right: Sequence[int]) -> int:
    """How many items two lists begin with alike."""
    return next((i for i, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), len(left))

"""A log record for each request that ends, with its id and its numbers as attributes; off, it costs one comparison."""

from __future__ import annotations

import logging

from mlx_agent_llm.request import Delta, Timings, Usage

_log = logging.getLogger("mlx_agent_llm.requests")


def log_end(request_id: int, trace_id: str | None, last: Delta) -> None:
    """Log the end of a request at INFO; usage and times are zeros where a failed one has none."""
    if not _log.isEnabledFor(logging.INFO):
        return
    usage, timings = last.usage or Usage(), last.timings or Timings()
    fields = {
        "request_id": request_id,
        "trace_id": trace_id,
        "finish_reason": last.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "queue_seconds": timings.queue,
        "ttft_seconds": timings.ttft,
        "total_seconds": timings.total,
        "error": None if last.error is None else f"{type(last.error).__name__}: {last.error}",
    }
    _log.info("request %d ended: %s", request_id, last.finish_reason, extra=fields)

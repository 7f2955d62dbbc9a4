"""What became of the requests: how they ended, how long they took, how many tokens they had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from mlx_agent_llm.core.histogram import Histogram, HistogramCounts
from mlx_agent_llm.request import Delta, FinishReason, Timings

# Bounds as vLLM has them, so that its dashboards draw the same lines.
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_GAP = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


@dataclass(frozen=True)
class RequestStats:
    """The requests that ended since the engine was made; times are in seconds, each sample of n is a request.

    num_finished: how many ended for which reason. prompt_tokens, generated_tokens: of those that did not fail.
    queue_time, total_time, running_time: until a request ran, until it ended, and between. first_token_time,
    prefill_time, decode_time, time_per_token: of those that got a token; from submission and from the queue's end to
    the first token, from there to the end, and that over the tokens after the first. token_gap: from one step of a
    running stream to its next, once for each stream of the step.
    """

    num_finished: Mapping[FinishReason, int]
    prompt_tokens: HistogramCounts
    generated_tokens: HistogramCounts
    queue_time: HistogramCounts
    total_time: HistogramCounts
    running_time: HistogramCounts
    first_token_time: HistogramCounts
    prefill_time: HistogramCounts
    decode_time: HistogramCounts
    time_per_token: HistogramCounts
    token_gap: HistogramCounts


class RequestMeter:
    """Counts on the engine's thread as requests end and steps follow each other."""

    def __init__(self) -> None:
        self._num_finished: dict[FinishReason, int] = dict.fromkeys(get_args(FinishReason), 0)
        self._prompt_tokens, self._generated_tokens = Histogram(_TOKENS), Histogram(_TOKENS)
        self._queue_time, self._total_time, self._running_time = (Histogram(_LATENCY) for _ in range(3))
        self._first_token_time = Histogram(_FIRST_TOKEN)
        self._prefill_time, self._decode_time = Histogram(_LATENCY), Histogram(_LATENCY)
        self._time_per_token, self._token_gap = Histogram(_TOKEN_GAP), Histogram(_TOKEN_GAP)

    def count_end(self, last: Delta) -> None:
        """A request ended with this delta."""
        assert last.finish_reason is not None
        self._num_finished[last.finish_reason] += 1
        if last.finish_reason == "error" or last.usage is None or last.timings is None:
            return
        self._prompt_tokens.add(last.usage.prompt_tokens)
        self._generated_tokens.add(last.usage.completion_tokens)
        self._queue_time.add(last.timings.queue)
        self._total_time.add(last.timings.total)
        self._running_time.add(last.timings.total - last.timings.queue)
        if last.usage.completion_tokens:
            self._count_tokens(last.timings, last.usage.completion_tokens)

    def count_gap(self, seconds: float, num_streams: int) -> None:
        """So many streams got their next token so long after the one before."""
        self._token_gap.add(seconds, num_streams)

    def snapshot(self) -> RequestStats:
        """All counts as they are now; any thread may ask."""
        return RequestStats(
            num_finished=dict(self._num_finished),
            prompt_tokens=self._prompt_tokens.snapshot(),
            generated_tokens=self._generated_tokens.snapshot(),
            queue_time=self._queue_time.snapshot(),
            total_time=self._total_time.snapshot(),
            running_time=self._running_time.snapshot(),
            first_token_time=self._first_token_time.snapshot(),
            prefill_time=self._prefill_time.snapshot(),
            decode_time=self._decode_time.snapshot(),
            time_per_token=self._time_per_token.snapshot(),
            token_gap=self._token_gap.snapshot(),
        )

    def _count_tokens(self, timings: Timings, num_tokens: int) -> None:
        self._first_token_time.add(timings.ttft)
        self._prefill_time.add(timings.ttft - timings.queue)
        self._decode_time.add(timings.total - timings.ttft)
        if num_tokens > 1:
            self._time_per_token.add((timings.total - timings.ttft) / (num_tokens - 1))

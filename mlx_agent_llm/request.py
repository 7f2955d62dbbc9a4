"""One request: what is asked (SamplingParams), what it becomes (Request) and what comes back (Delta, RequestOutput)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.config import check_range
from mlx_agent_llm.constrain.spec import Constraint, JSONSchema
from mlx_agent_llm.errors import MLXAgentError, RequestError

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


@dataclass(frozen=True)
class SamplingParams:
    """How one request is sampled and when it ends; a bad value is a RequestError that names field, value and bound.

    max_tokens: most new tokens.
    temperature: 0 takes the most probable token, otherwise logits are divided by it.
    top_p, top_k, min_p: keep the smallest set of tokens with that probability mass, the k most probable ones, and those
        at least min_p times as probable as the best one; 1.0, 0 and 0.0 keep all. Applied in the order top_k, top_p,
        min_p to the distribution after temperature.
    seed: a request's tokens are a function of prompt, parameters and seed; None draws one from the engine.
    n: samples of each prompt; the i-th uses seed + i.
    stop: texts that end the output and are not part of it. An empty one is an error.
    stop_token_ids: token ids that end the output beside the model's own end tokens.
    ignore_eos: the model's own end tokens do not end the output.
    priority: higher runs first.
    timeout: seconds from submission after which the request fails with RequestTimeout.
    constraint: what the output must be; the grammar is applied inside the sampler.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    n: int = 1
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    priority: int = 0
    timeout: float | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        try:
            stop = (self.stop,) if isinstance(self.stop, str) else _as_tuple("stop", self.stop)
            object.__setattr__(self, "stop", stop)
            object.__setattr__(self, "stop_token_ids", _as_tuple("stop_token_ids", self.stop_token_ids))
            self._check()
        except ValueError as error:
            raise RequestError(str(error)) from None

    def _check(self) -> None:
        check_range("max_tokens", self.max_tokens, 1)
        check_range("temperature", self.temperature, 0, 1e4, integer=False)
        check_range("top_p", self.top_p, 1e-9, 1, integer=False)
        check_range("top_k", self.top_k, 0)
        check_range("min_p", self.min_p, 0, 1, integer=False)
        check_range("n", self.n, 1)
        check_range("priority", self.priority, -(2**31), 2**31)
        if self.seed is not None:
            check_range("seed", self.seed, 0, 2**32 - self.n)
        if self.timeout is not None:
            check_range("timeout", self.timeout, 0, 1e9, integer=False)
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop={self.stop!r} must hold non-empty strings")
        for token_id in self.stop_token_ids:
            check_range("stop_token_ids", token_id, 0)
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise ValueError(f"constraint={self.constraint!r} must be a JSONSchema")
        if isinstance(self.constraint, JSONSchema) and (self.stop or self.stop_token_ids):
            raise ValueError("stop and stop_token_ids contradict a JSONSchema: they would cut the JSON")
        if self.constraint is not None and self.ignore_eos:
            raise ValueError("ignore_eos=True contradicts a constraint, which ends by the end token")


def _as_tuple(name: str, values: object) -> tuple[object, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"{name}={values!r} must be a sequence")
    return tuple(values)


@dataclass(frozen=True)
class Usage:
    """Token counts of one request; the KV of cached_tokens of the prompt was found, not computed."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds: waiting in the queue, from submission to the first token (ttft), and to the end."""

    queue: float = 0.0
    ttft: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Delta:
    """What one step added to a request. The last one has a finish_reason, usage and timings."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: MLXAgentError | None = None


@dataclass(frozen=True)
class RequestOutput:
    """A whole result: the fold of its deltas."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class Matcher(Protocol):
    """Where one request stands in its grammar. Made anew for every request, used by the engine thread alone."""

    def accept(self, token_id: int) -> bool:
        """Advance by one sampled token; False when the grammar does not allow it."""

    def fill_mask(self, mask: npt.NDArray[np.int32], row: int) -> None:
        """Write row `row` of the (rows, ceil(vocab / 32)) bitmask: bit i of the row says whether token i may follow."""

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete and nothing but an end token could follow."""


@dataclass(eq=False)
class Request:
    """One row of the engine, from submission to its last delta. The engine thread alone changes it."""

    request_id: int
    prompt_token_ids: Sequence[int]
    params: SamplingParams
    seed: int
    sink: Callable[[Delta], None]
    matcher: Matcher | None = None
    submitted_at: float = field(default_factory=time.perf_counter)

    token_ids: list[int] = field(init=False)  # the prompt and every token read so far
    num_in_flight: int = 0  # tokens sampled on the device and not yet read: 0 or 1
    num_computed_tokens: int = 0  # tokens whose KV is written by the forwards dispatched so far
    num_cached_tokens: int = 0  # prompt tokens whose KV was found, not computed
    num_preemptions: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they were asked for
    num_published_blocks: int = 0  # leading blocks that other requests can find
    started_at: float | None = None
    first_token_at: float | None = None
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """All tokens of the request, the one in flight too."""
        return len(self.token_ids) + self.num_in_flight

    @property
    def num_output_tokens(self) -> int:
        """Sampled tokens, the one in flight too."""
        return self.num_tokens - self.num_prompt_tokens

    @property
    def is_finished(self) -> bool:
        """Whether its last delta was made."""
        return self.finish_reason is not None

    @property
    def deadline(self) -> float | None:
        """The time.perf_counter() value at which the request times out."""
        return None if self.params.timeout is None else self.submitted_at + self.params.timeout

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(self.num_prompt_tokens, self.num_cached_tokens, len(self.token_ids) - self.num_prompt_tokens)

    @property
    def timings(self) -> Timings:
        """Seconds so far."""
        now = time.perf_counter()
        return Timings(
            queue=(self.started_at or now) - self.submitted_at,
            ttft=(self.first_token_at or now) - self.submitted_at,
            total=now - self.submitted_at,
        )

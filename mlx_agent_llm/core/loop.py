"""EngineCore: requests in, deltas out, one step at a time. Single-threaded; knows no threads, no text prompts, no chat.

A step dispatches its forward before the last step's tokens are read: the forward needs them only on the device. While
it runs they are read, the matchers accept them and the masks are filled; only the sampling waits for that. A row that
turns out to have ended wasted one row of one forward.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.attention import ModelShape
from mlx_agent_llm.core.batch import Batch, make_batch
from mlx_agent_llm.core.kv_manager import KVManager
from mlx_agent_llm.core.memory import num_pool_blocks
from mlx_agent_llm.core.runner import ModelRunner
from mlx_agent_llm.core.sampler import sample, sampling_rows
from mlx_agent_llm.core.scheduler import Scheduler
from mlx_agent_llm.core.stats import EngineStats, StepMeter
from mlx_agent_llm.core.stopping import Stopping
from mlx_agent_llm.errors import GenerationError, MLXAgentError, RequestTimeout
from mlx_agent_llm.request import Delta, FinishReason, Request


class Vocabulary(NamedTuple):
    """What the core knows of the tokenizer: token_bytes[i] is the text of token i."""

    token_bytes: Sequence[bytes]
    eos_token_ids: frozenset[int]
    strip_leading_space: bool = False


class Emission(NamedTuple):
    """A delta and the request it belongs to."""

    request: Request
    delta: Delta


class _InFlight(NamedTuple):
    """Tokens that were sampled on the device and not yet read."""

    tokens: mx.array  # (S,)
    requests: tuple[Request, ...]  # (S,)


class EngineCore:
    """Owns the scheduler, the KV pool, the model runner and the requests that are open."""

    def __init__(
        self, model: nn.Module, shape: ModelShape, vocabulary: Vocabulary, config: EngineConfig, max_model_len: int
    ) -> None:
        num_blocks = num_pool_blocks(shape.layers, config, max_model_len)
        self.kv_manager = KVManager(num_blocks, config.block_size, prefix_cache=config.prefix_cache)
        self.scheduler = Scheduler(config, self.kv_manager, max_model_len)
        self._runner = ModelRunner(model, shape.layers, num_blocks, config.block_size)
        self._stopping = Stopping(
            vocabulary.token_bytes,
            vocabulary.eos_token_ids,
            max_model_len,
            strip_leading_space=vocabulary.strip_leading_space,
        )
        self._mask_words = -(-shape.vocab_size // 32)
        self._block_size = config.block_size
        self._requests: dict[int, Request] = {}
        self._in_flight: _InFlight | None = None
        self._meter = StepMeter()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._requests)

    def add(self, request: Request) -> None:
        """Queue a request that the scheduler's check let through."""
        self.scheduler.waiting.append(request)
        self._requests[request.request_id] = request

    def abort(self, request_id: int) -> list[Emission]:
        """End a request as cancelled, with the text so far; its blocks are free at once. Unknown ids are none."""
        request = self._requests.get(request_id)
        return [] if request is None else [self._end(request, "cancelled")]

    def step(self) -> list[Emission]:
        """Compute one batch and return what the batch before it produced."""
        outputs = self._time_out()
        self._meter.begin()
        batch: Batch | None = None
        try:
            schedule = self.scheduler.schedule()
            in_flight, self._in_flight = self._in_flight, None
            if schedule is not None:
                batch = make_batch(schedule, in_flight.requests if in_flight else (), self._block_size)
                logits = self._runner.forward(batch, in_flight.tokens if in_flight else None)
            outputs += self._collect(in_flight)  # only here is the last step's token read
            if batch is not None and batch.sampled:
                bitmask, failures = self._fill_masks(batch.sampled)
                outputs += failures
                self._in_flight = self._sample(batch.sampled, logits, bitmask)
        except Exception as fault:
            return outputs + self._fail_running(fault)
        self._meter.end(batch, self.kv_manager)
        return outputs

    def fail_all(self, error: MLXAgentError) -> list[Emission]:
        """End every open request with an error."""
        return [self._fail(request, error) for request in list(self._requests.values())]

    def close(self) -> None:
        """Give the pools' memory back; the counts stay."""
        self._runner.close()

    def stats(self) -> EngineStats:
        """A snapshot; any thread may ask."""
        return self._meter.snapshot(self.scheduler, self.kv_manager)

    def check_integrity(self) -> None:
        """Assert that the pool is whole and, when nothing is open, that no block is held."""
        self.kv_manager.pool.check_integrity()
        assert self._requests or self.kv_manager.pool.num_used == 0, "blocks are held by nobody"

    def _collect(self, in_flight: _InFlight | None) -> list[Emission]:
        """Read the last step's tokens, let each request take its own, and end those that are done."""
        if in_flight is None:
            return []
        outputs = []
        for request, token_id in zip(in_flight.requests, _read(in_flight.tokens), strict=True):
            request.num_in_flight = 0
            if not request.is_finished:
                outputs.append(self._advance(request, token_id))
        return outputs

    def _advance(self, request: Request, token_id: int) -> Emission:
        request.first_token_at = request.first_token_at or time.perf_counter()
        self._meter.num_generated_tokens += 1
        try:
            delta = self._stopping.advance(request, token_id)
        except Exception as fault:  # the fault is this request's alone
            return self._fail(request, _as_error(fault))
        if request.is_finished:
            self._forget(request)
        return Emission(request, delta)

    def _fill_masks(self, requests: Sequence[Request]) -> tuple[npt.NDArray[np.int32] | None, list[Emission]]:
        """(S, ceil(V / 32)) of what the grammars allow next, all ones where there is none; None without any grammar."""
        constrained = [
            (row, request) for row, request in enumerate(requests) if request.matcher and not request.is_finished
        ]
        if not constrained:
            return None, []
        bitmask = np.full((len(requests), self._mask_words), -1, dtype=np.int32)
        failures = []
        for row, request in constrained:
            assert request.matcher is not None
            try:
                request.matcher.fill_mask(bitmask, row)
                if not bitmask[row].any():
                    raise GenerationError("the grammar allows no token here, although its text is not complete")
            except Exception as fault:  # the fault is this request's alone
                failures.append(self._fail(request, _as_error(fault)))
        return bitmask, failures

    def _sample(
        self, requests: tuple[Request, ...], logits: mx.array, bitmask: npt.NDArray[np.int32] | None
    ) -> _InFlight:
        tokens = sample(logits, bitmask, sampling_rows(requests))
        mx.async_eval(tokens)
        for request in requests:
            request.num_in_flight = 0 if request.is_finished else 1
        return _InFlight(tokens, requests)

    def _time_out(self) -> list[Emission]:
        now = time.perf_counter()
        late = [r for r in self._requests.values() if r.deadline is not None and r.deadline < now]
        return [
            self._fail(r, RequestTimeout(f"request {r.request_id} did not finish within timeout={r.params.timeout} s"))
            for r in late
        ]

    def _fail_running(self, fault: Exception) -> list[Emission]:
        """After a fault in a forward nobody knows what the pools hold: running requests fail, the pools are made anew.

        Waiting requests hold no blocks; they run as soon as the engine goes on.
        """
        self._in_flight = None
        self._runner.reset()  # first: when that fails too, the requests are still open, and the worker fails them
        outputs = [self._fail(request, _as_error(fault)) for request in list(self.scheduler.running)]
        for request in self.scheduler.waiting:
            request.num_in_flight = 0  # a token lost in flight is sampled again, the same one
        self.kv_manager.pool.forget()
        return outputs

    def _fail(self, request: Request, error: MLXAgentError) -> Emission:
        delta = self._stopping.fail(request, error)
        self._forget(request)
        return Emission(request, delta)

    def _end(self, request: Request, reason: FinishReason) -> Emission:
        delta = self._stopping.end(request, reason)
        self._forget(request)
        return Emission(request, delta)

    def _forget(self, request: Request) -> None:
        self.scheduler.finish(request)
        del self._requests[request.request_id]


def _read(tokens: mx.array) -> list[int]:
    """Wait for sampled tokens: the only point of a step where the host waits for the device."""
    token_ids: list[int] = tokens.tolist()  # type: ignore[assignment]
    return token_ids


def _as_error(fault: Exception) -> MLXAgentError:
    if isinstance(fault, MLXAgentError):
        return fault
    error = GenerationError(f"{type(fault).__name__}: {fault}")
    error.__cause__ = fault
    return error

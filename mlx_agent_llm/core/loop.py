"""EngineCore: requests in, deltas out, one step at a time. Single-threaded; knows no threads, no text prompts, no chat.

A step dispatches its forward before the last step's tokens are read: the forward needs them only on the device. While
it runs they are read, the matchers accept them and the masks are filled; only the sampling waits for that. A row that
turns out to have ended wasted one row of one forward.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_agent_kernels import UnsupportedKernelError
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.forward.probe import ModelShape
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import num_pool_blocks
from mlx_agent_llm.core.output.logprobs import LogprobArrays, compute_logprobs, read_logprobs
from mlx_agent_llm.core.output.sampler import Sampler, sample
from mlx_agent_llm.core.output.stopping import Stopping
from mlx_agent_llm.core.schedule.jump_forward import JumpForward, SpellForcedText
from mlx_agent_llm.core.schedule.scheduler import Schedule, Scheduler
from mlx_agent_llm.core.schedule.warm_up import warm_up_schedules
from mlx_agent_llm.core.stats import EngineStats, StepMeter
from mlx_agent_llm.errors import (
    GenerationError,
    MLXAgentError,
    RequestError,
    RequestTimeout,
    UnsupportedModelError,
)
from mlx_agent_llm.request import Delta, FinishReason, Request, TokenLogprob


class Vocabulary(NamedTuple):
    """What the core knows of the tokenizer: token_bytes[i] is the text of token i.

    spell_forced_text: the tokens of a text after given ones; without it no token is forced.
    """

    token_bytes: Sequence[bytes]
    eos_token_ids: frozenset[int]
    strip_leading_space: bool = False
    spell_forced_text: SpellForcedText | None = None


class Emission(NamedTuple):
    """A delta and the request it belongs to."""

    request: Request
    delta: Delta


class _InFlight(NamedTuple):
    """Tokens that were sampled on the device and not yet read."""

    tokens: mx.array  # (S,)
    receivers: Sequence[Request | None]  # (S,) whose they are; None of a row that ended, or whose next token was forced
    logprobs: LogprobArrays | None
    batch: Batch  # that they were sampled from


class EngineCore:
    """Owns the scheduler, the KV pool, the model runner and the requests that are open."""

    def __init__(
        self, model: nn.Module, shape: ModelShape, vocabulary: Vocabulary, config: EngineConfig, max_model_len: int
    ) -> None:
        num_blocks = num_pool_blocks(shape.layers, config, max_model_len)
        self.kv_manager = KVManager(num_blocks, config.block_size, prefix_cache=config.prefix_cache)
        self.scheduler = Scheduler(config, self.kv_manager, max_model_len)
        self.meter = StepMeter()
        self._clock = self.meter.clock
        self._runner = ModelRunner(
            model, shape.layers, num_blocks, config.block_size, self._clock, compile=config.compile
        )
        self._batch_maker = BatchMaker(config.block_size, self._runner.packing)
        self._stopping = Stopping(
            vocabulary.token_bytes,
            vocabulary.eos_token_ids,
            max_model_len,
            strip_leading_space=vocabulary.strip_leading_space,
        )
        self._sampler = Sampler(self._stopping.end_token_ids, shape.vocab_size)
        self._jumps = JumpForward(vocabulary.spell_forced_text if config.jump_forward else None)
        self._kv_cache_bytes = num_blocks * config.block_size * sum(layer.num_bytes for layer in shape.layers)
        self._mask_words = -(-shape.vocab_size // 32)
        self._block_size = config.block_size
        self.fault: Exception | None = None  # after which nothing more can be computed
        self._requests: dict[int, Request] = {}
        self._in_flight: _InFlight | None = None
        self._ready_at: float | None = None  # when the last step's tokens were there
        self._warm_up(config.max_tokens_per_step, max_model_len)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._requests)

    def add(self, request: Request, parent_id: int | None = None) -> None:
        """Queue a request that the scheduler's check let through; it waits for an open parent, to share its KV.

        Its prompt is computed while its grammar is compiled, all but the last token.
        """
        parent = None if parent_id is None else self._requests.get(parent_id)
        if parent is not None and parent.cache_key == request.cache_key:
            request.parent = parent
        self.scheduler.waiting.append(request)
        self._requests[request.request_id] = request

    def fork(self, request: Request, parent_id: int) -> list[Emission]:
        """Queue a request that goes on from the tokens its parent has by now: they are its first delta.

        One that ends with them is not queued, and one that cannot go on from them fails. A grammar has to be compiled.
        """
        try:
            if request.grammar is not None:
                request.matcher, request.grammar = request.grammar.result().matcher(), None
            delta = self._replay(request, self._requests.get(parent_id))
        except Exception as fault:  # the fault is this request's alone
            return [Emission(request, self._stopping.fail(request, _as_error(fault)))]
        if not request.is_finished:
            self.add(request, parent_id)
        return [Emission(request, delta)] if delta.token_ids else []

    def abort(self, request_id: int) -> list[Emission]:
        """End a request as cancelled, with the text so far; its blocks are free at once. Unknown ids are none."""
        request = self._requests.get(request_id)
        return [] if request is None else [self._end(request, "cancelled")]

    def step(self) -> list[Emission]:
        """Compute one batch and return what the batch before it produced."""
        self.meter.begin()
        outputs = self._time_out() + self._take_grammars()
        try:
            batch = self._run_batch(outputs)
        except Exception as fault:
            return outputs + self._recover(fault)
        self.meter.end(batch, self.kv_manager)
        return outputs

    def fail_all(self, error: MLXAgentError) -> list[Emission]:
        """End every open request with an error."""
        return [self._fail(request, error) for request in list(self._requests.values())]

    def close(self) -> None:
        """Give the memory of the pools and of the model back; the counts stay."""
        self._runner.close()

    def reset_prefix_cache(self) -> None:
        """Forget the content of every block; what runs goes on."""
        self.kv_manager.reset_prefix_cache(self.scheduler.running)

    def stats(self) -> EngineStats:
        """A snapshot; any thread may ask."""
        return self.meter.snapshot(self.scheduler, self.kv_manager, self._kv_cache_bytes)

    def check_integrity(self) -> None:
        """Assert that the pool is whole and, when nothing is open, that no block is held."""
        self.kv_manager.pool.check_integrity()
        assert self._requests or self.kv_manager.pool.num_used == 0, "blocks are held by nobody"

    def _run_batch(self, outputs: list[Emission]) -> Batch | None:
        """Dispatch a forward, add to `outputs` what the one before it produced, and sample."""
        schedule = self.scheduler.schedule()
        self._clock.mark("schedule")
        in_flight, self._in_flight = self._in_flight, None
        batch: Batch | None = None
        if schedule is not None:
            batch = self._make_batch(schedule, in_flight)
            self._clock.mark("batch")
            logits = self._runner.forward(batch, in_flight.tokens if in_flight else None)
            self._clock.mark("dispatch")
        outputs += self._collect(in_flight)  # only here is the last step's token read
        self._clock.mark("advance")
        if batch is None and in_flight is None:
            self._wait_for_grammars()
        if batch is not None and batch.sampled and self._requests:
            receivers, jumps = self._jump_forward(batch.sampled)
            bitmask, failures = self._fill_masks(receivers)
            outputs += jumps + failures
            self._clock.mark("masks")
            if self._requests:  # the last one may have ended or failed just now
                self._in_flight = self._sample(batch, logits, bitmask, receivers)
        return batch

    def _replay(self, request: Request, parent: Request | None) -> Delta:
        """Take what the parent has put out so far, up to what ends the request."""
        if parent is None:
            raise RequestError("the request to fork has ended: only one that waits or runs can be forked")
        token_ids = parent.token_ids[parent.num_prompt_tokens :]
        logprobs = _inherit_logprobs(request, parent) if token_ids else []
        request.first_token_at = time.perf_counter() if token_ids else None
        try:
            delta = self._stopping.advance_all(request, token_ids)
        except GenerationError as rejection:
            raise RequestError(f"the constraint of a fork must allow the output so far: {rejection}") from None
        if request.params.logprobs is None:
            return delta
        num_same = _num_equal(delta.token_ids, token_ids)  # the others close the text
        request.logprobs = logprobs[:num_same] + list(_closing_logprobs(delta.token_ids[num_same:]))
        return delta._replace(logprobs=tuple(request.logprobs))

    def _warm_up(self, max_chunk: int, max_model_len: int) -> None:
        """Compute for nobody, so that no request pays for what MLX compiles when it is first used."""
        for schedule in warm_up_schedules(self._runner.packing, self._block_size, max_chunk, max_model_len):
            batch = self._make_batch(schedule, None)
            try:
                mx.eval(self._runner.forward(batch, None))
            except UnsupportedKernelError as error:
                raise UnsupportedModelError(str(error)) from None

    def _make_batch(self, schedule: Schedule, in_flight: _InFlight | None) -> Batch:
        return self._batch_maker.make(schedule, in_flight.receivers if in_flight else ())

    def _collect(self, in_flight: _InFlight | None) -> list[Emission]:
        """Read the last step's tokens, let each request take its own, and end those that are done."""
        if in_flight is None:
            self._ready_at = None
            return []
        outputs = []
        token_ids = _read(in_flight.tokens)
        self._clock.mark("wait")
        self._observe(in_flight.batch)
        logprobs = _read_logprobs(in_flight, token_ids)
        for request, token_id, logprob in zip(in_flight.receivers, token_ids, logprobs, strict=True):
            if request is None:
                continue
            request.num_in_flight = 0
            if not request.is_finished:
                outputs.append(self._advance(request, token_id, logprob))
        return outputs

    def _observe(self, batch: Batch) -> None:
        """Tell the pacer how long the step took whose tokens were read just now, if it came right after another."""
        last_ready_at, self._ready_at = self._ready_at, self._runner.take_ready_at() or time.perf_counter()
        if last_ready_at is not None and batch.num_rows > 0:
            self.scheduler.pacer.observe(batch.num_prompt_tokens, self._ready_at - last_ready_at)

    def _advance(self, request: Request, token_id: int, logprob: TokenLogprob | None) -> Emission:
        try:
            delta = self._stopping.advance(request, token_id)
        except Exception as fault:  # the fault is this request's alone
            return self._fail(request, _as_error(fault))
        if logprob is not None:
            logprobs = _closing_logprobs(delta.token_ids) if delta.forced_close else (logprob,)
            request.logprobs += logprobs
            delta = delta._replace(logprobs=logprobs)
        return self._emit(request, delta)

    def _emit(self, request: Request, delta: Delta) -> Emission:
        request.first_token_at = request.first_token_at or time.perf_counter()
        self.meter.num_generated_tokens += len(delta.token_ids)
        if request.is_finished:
            self._forget(request)
        return Emission(request, delta)

    def _jump_forward(self, requests: Sequence[Request]) -> tuple[list[Request | None], list[Emission]]:
        """Give each request the tokens that its grammar forces, and return whose next ones are to be sampled.

        The forward of this step has computed what comes before those tokens, and its logits are not needed. The next
        step computes them as one chunk.
        """
        receivers: list[Request | None] = [None if request.is_finished else request for request in requests]
        outputs = []
        for row, request in enumerate(requests):
            if receivers[row] is None:
                continue
            try:
                if token_ids := self._jumps.find(request):
                    receivers[row] = None
                    outputs.append(self._take_forced(request, token_ids))
            except Exception as fault:  # the fault is this request's alone
                receivers[row] = None
                outputs.append(self._fail(request, _as_error(fault)))
        return receivers, outputs

    def _take_forced(self, request: Request, token_ids: list[int]) -> Emission:
        delta = self._stopping.advance_all(request, token_ids)
        request.num_jumped_tokens = len(token_ids)
        self.meter.num_forced_tokens += 0 if delta.forced_close else len(delta.token_ids)
        return self._emit(request, delta)

    def _fill_masks(self, requests: Sequence[Request | None]) -> tuple[npt.NDArray[np.int32] | None, list[Emission]]:
        """(S, ceil(V / 32)) of what the grammars allow next, all ones where there is none; None without any grammar."""
        constrained = [(row, one) for row, one in enumerate(requests) if one is not None and one.matcher is not None]
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
        self,
        batch: Batch,
        logits: mx.array,
        bitmask: npt.NDArray[np.int32] | None,
        receivers: Sequence[Request | None],
    ) -> _InFlight:
        rows = self._sampler.rows(batch.sampled)
        self._clock.mark("parameters")
        tokens = sample(logits, bitmask, rows)
        logprobs = None
        if rows.logprob_rows is not None:
            logprobs = compute_logprobs(logits, tokens, rows.logprob_rows, with_top=rows.with_top_logprobs)
        mx.async_eval(tokens, *(logprobs.arrays if logprobs else ()))
        self._clock.mark("sample")
        for request in receivers:
            if request is not None:
                request.num_in_flight = 0 if request.is_finished else 1
        return _InFlight(tokens, receivers, logprobs, batch)

    def _take_grammars(self) -> list[Emission]:
        """Give the requests whose grammars are compiled by now their matchers; one that cannot be compiled fails."""
        outputs = []
        for request in [one for one in self._requests.values() if one.grammar is not None and one.grammar.done()]:
            assert request.grammar is not None
            try:
                request.matcher, request.grammar = request.grammar.result().matcher(), None
            except Exception as fault:  # the fault is this request's alone
                outputs.append(self._fail(request, _as_error(fault)))
        return outputs

    def _wait_for_grammars(self) -> None:
        """Nothing can be computed before one of them is there; not for long, because there may be new requests."""
        wait([r.grammar for r in self._requests.values() if r.grammar is not None], 0.01, FIRST_COMPLETED)

    def _time_out(self) -> list[Emission]:
        now = time.perf_counter()
        late = [r for r in self._requests.values() if r.deadline is not None and r.deadline < now]
        return [
            self._fail(r, RequestTimeout(f"request {r.request_id} did not finish within timeout={r.params.timeout} s"))
            for r in late
        ]

    def _recover(self, fault: Exception) -> list[Emission]:
        """Fail what ran; when not even that works, fail everything and say so in `fault`."""
        try:
            return self._fail_running(fault)
        except Exception as worse:
            self.fault = worse
            return self.fail_all(_as_error(worse))

    def _fail_running(self, fault: Exception) -> list[Emission]:
        """After a fault in a forward nobody knows what the pools hold: running requests fail, the pools are made anew.

        Waiting requests hold no blocks; they run as soon as the engine goes on.
        """
        self._in_flight = None
        _drop_locals(fault)
        self._runner.reset()  # first: when that fails too, the requests are still open
        outputs = [self._fail(request, _as_error(fault)) for request in list(self.scheduler.running)]
        for request in self.scheduler.waiting:
            request.num_in_flight = 0  # a token lost in flight is sampled again, the same one
        self.kv_manager.pool.forget()
        self.kv_manager.take_copies()  # those of a step that broke before its forward
        return outputs

    def _fail(self, request: Request, error: MLXAgentError) -> Emission:
        delta = self._stopping.fail(request, error)
        self._forget(request)
        return Emission(request, delta)

    def _end(self, request: Request, reason: FinishReason) -> Emission:
        try:
            delta = self._stopping.end(request, reason)
        except Exception as fault:  # the fault is this request's alone
            return self._fail(request, _as_error(fault))
        self._forget(request)
        return Emission(request, delta)

    def _forget(self, request: Request) -> None:
        self.scheduler.finish(request)
        self._sampler.forget(request)
        del self._requests[request.request_id]
        if not self._requests:
            self._in_flight = None  # or an idle engine would hold on to those it served last, and to their callers


def _read(tokens: mx.array) -> list[int]:
    """Wait for sampled tokens: the only point of a step where the host waits for the device."""
    token_ids: list[int] = tokens.tolist()  # type: ignore[assignment]
    return token_ids


def _read_logprobs(in_flight: _InFlight, token_ids: list[int]) -> list[TokenLogprob | None]:
    """Those of tokens that were read: they were computed together, so that nothing is waited for."""
    if in_flight.logprobs is None:
        return [None] * len(token_ids)
    return read_logprobs(in_flight.logprobs, token_ids, in_flight.batch.sampled)


def _closing_logprobs(token_ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token_id, math.nan, ()) for token_id in token_ids)


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


def _drop_locals(fault: BaseException | None) -> None:
    """Empty the frames that a fault came through: they hold the pools, and whoever keeps the error keeps them."""
    while fault is not None:
        traceback.clear_frames(fault.__traceback__)
        fault = fault.__cause__ or fault.__context__


def _as_error(fault: Exception) -> MLXAgentError:
    if isinstance(fault, MLXAgentError):
        return fault
    error = GenerationError(f"{type(fault).__name__}: {fault}")
    error.__cause__ = fault
    return error

"""EngineCore: requests in, deltas out, one step at a time. Single-threaded; knows no threads, no text prompts, no chat.

A step dispatches its forward before the last step's tokens are read: the forward needs them only on the device. While
it runs they are read, the matchers accept them and the masks are filled; only the sampling waits for that. A row that
turns out to have ended wasted one row of one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_agent_kernels import UnsupportedKernelError
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.answers import Answers, Emission
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.draft_parts import DraftParts
from mlx_agent_llm.core.forward.model_faults import refuse_faults_of
from mlx_agent_llm.core.forward.probe import ModelShape
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.forward.step_memory import parameter_bytes, step_bytes
from mlx_agent_llm.core.forward.trial import Trial
from mlx_agent_llm.core.kv.kv_manager import KVManager, PrefixStats
from mlx_agent_llm.core.kv.memory import kv_bytes, pool_sizes
from mlx_agent_llm.core.output.masks import fill_masks
from mlx_agent_llm.core.output.sampler import Sampler
from mlx_agent_llm.core.output.samples import dispatch_samples
from mlx_agent_llm.core.output.stopping import Stopping
from mlx_agent_llm.core.reading import InFlight, Reading
from mlx_agent_llm.core.recovery import Recovery
from mlx_agent_llm.core.schedule.grammar_wait import hand_out_matchers, wait_for_grammars
from mlx_agent_llm.core.schedule.jump_forward import JumpForward, SpellForcedText
from mlx_agent_llm.core.schedule.schedule import Schedule
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.schedule.speculation.draft_model import DraftModel
from mlx_agent_llm.core.schedule.speculation.speculation import Speculation
from mlx_agent_llm.core.schedule.warm_up import warm_up_schedules
from mlx_agent_llm.core.stats import EngineStats, StepMeter
from mlx_agent_llm.core.tiering.tiering import Tier, Tiering
from mlx_agent_llm.errors import MLXAgentError, UnsupportedModelError
from mlx_agent_llm.process.allocator import give_back_freed_buffers
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.process.memory_need import MemoryNeed
from mlx_agent_llm.request import Request


class Vocabulary(NamedTuple):
    """What the core knows of the tokenizer: token_bytes[i] is the text of token i.

    spell_forced_text: the tokens of a text after given ones; without it no token is forced.
    """

    token_bytes: Sequence[bytes]
    eos_token_ids: frozenset[int]
    strip_leading_space: bool = False
    spell_forced_text: SpellForcedText | None = None


class _Forward(NamedTuple):
    """What is being computed."""

    batch: Batch
    logits: mx.array  # (S, vocab)


class EngineCore:
    """Owns the scheduler, the KV pool, the model runner and the requests that are open."""

    def __init__(
        self,
        model: nn.Module,
        shape: ModelShape,
        vocabulary: Vocabulary,
        config: EngineConfig,
        max_model_len: int,
        device: mx.Device | None = None,  # MLX's default one when it is not given
        tier: Tier | None = None,
        draft_model: nn.Module | None = None,
    ) -> None:
        device = device or default_device.own
        draft = None if draft_model is None else DraftParts.of(draft_model)
        draft_token_bytes = 0 if draft is None else draft.token_bytes
        sizes = pool_sizes(shape.layers, config, max_model_len, device, draft_token_bytes=draft_token_bytes)
        num_pool_tokens = sizes.num_blocks * config.block_size
        self._kv_bytes = kv_bytes(sizes, shape.layers, config.block_size)
        self.memory_need = MemoryNeed(
            parameter_bytes(model), sum(self._kv_bytes), step_bytes(model, shape.layers, shape.vocab_size, config)
        )
        if draft is not None:
            self.memory_need = self.memory_need.with_draft_model(draft.need(num_pool_tokens, config))
        self.kv_manager = KVManager(
            sizes, config.block_size, prefix_cache=config.prefix_cache, snapshot_tokens=config.state_snapshot_tokens
        )
        self.scheduler = Scheduler(config, self.kv_manager, max_model_len)
        self.meter = StepMeter()
        self._clock = self.meter.clock
        self._runner = ModelRunner(model, shape, sizes, config.block_size, self._clock, device, compile=config.compile)
        self._batch_maker = BatchMaker(config.block_size, self._runner.packing)
        stopping = Stopping(
            vocabulary.token_bytes, vocabulary.eos_token_ids, strip_leading_space=vocabulary.strip_leading_space
        )
        self._sampler = Sampler(stopping.end_token_ids, shape.vocab_size)
        self._answers = Answers(stopping, self.scheduler, self._sampler, self.meter)
        self._recovery = Recovery(self._runner, self.kv_manager, self.scheduler, self._answers)
        self._jumps = JumpForward(vocabulary.spell_forced_text if config.jump_forward else None)
        self.speculation = Speculation(
            config.speculation,
            self._jumps,
            stopping.end_token_ids,
            shape.vocab_size,
            None if draft is None else DraftModel(draft.model, shape.vocab_size, num_pool_tokens, device),
        )
        self._reading = Reading(
            self._runner,
            self.kv_manager,
            self.scheduler,
            self._answers,
            self._fail_spoiled,
            self.speculation,
            self.meter,
        )
        self._tiering: Tiering | None = None
        self._vocab_size = shape.vocab_size
        self._in_flight: InFlight | None = None
        self.fault: Exception | None = None  # after which nothing more can be computed
        try:
            with refuse_faults_of(model):
                self._warm_up(config, max_model_len)
                if config.check_model:
                    self._try(model, config, max_model_len)
            if tier is not None:
                self._tiering = Tiering(
                    tier, self.kv_manager, self._runner, self.scheduler, self._clock, config.max_num_seqs
                )
        except BaseException:
            self.close()
            raise

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._answers.open) or (self._tiering is not None and self._tiering.has_work)

    def add(self, request: Request, parent_id: int | None = None) -> None:
        """Queue a request that the scheduler's check let through; it waits for an open parent, to share its KV.

        Its prompt is computed while its grammar is compiled, all but the last token.
        """
        parent = None if parent_id is None else self._answers.open.get(parent_id)
        if parent is not None and parent.cache_key == request.cache_key:
            request.parent = parent
        self._answers.add(request)

    def fork(self, request: Request, parent_id: int) -> list[Emission]:
        """Queue a request that goes on from the tokens its parent has by now: they are its first delta.

        One that ends with them is done at once, and one that cannot go on from them fails. Its grammar is compiled.
        """
        parent = self._answers.open.get(parent_id)
        self.add(request, parent_id)
        self._answers.fork(request, parent)
        return self._hand_out()

    def abort(self, request_id: int) -> list[Emission]:
        """End a request as cancelled, with the text so far; its blocks are free at once. Unknown ids are none."""
        request = self._answers.open.get(request_id)
        if request is not None:
            self._answers.end(request, "cancelled")
        return self._hand_out()

    def step(self) -> list[Emission]:
        """Compute one batch and return what the batch before it produced."""
        self.meter.begin()
        self._answers.time_out()
        hand_out_matchers(self._answers.open.values(), self._answers.fail)
        try:
            batch = self._compute()
        except Exception as fault:
            self.fault = self._recovery.recover(fault)
            if self._tiering is not None:
                self._tiering.drop()
        else:
            self.meter.end(batch, self.kv_manager)
        return self._hand_out()

    def fail_all(self, error: MLXAgentError) -> list[Emission]:
        """End every open request with an error."""
        self._answers.fail_each(self._answers.open.values(), error)
        return self._hand_out()

    def close(self) -> None:
        """Give the pools' memory and the model back, when all is on the disk that goes there; the counts stay."""
        if self._tiering is not None:
            self._tiering.close()
        self.kv_manager.pins.drop()
        self.speculation.close()
        self._runner.close()

    def reset_prefix_cache(self) -> None:
        """Forget the content of every block, on the disk too; what runs goes on."""
        if self._tiering is not None:
            self._tiering.clear()
        self.kv_manager.reset_prefix_cache(self.scheduler.running)

    def trial(self, model: nn.Module, config: EngineConfig, max_model_len: int) -> Trial:
        """A comparison with mlx-lm's own cache, to be run while nothing is open."""
        max_tokens = min(max_model_len, self.kv_manager.pool.num_blocks * config.block_size)
        return Trial(model, self._runner, self.scheduler, self._vocab_size, config.block_size, max_tokens)

    def relieve_memory(self) -> None:
        """Give the system back what is only kept to save time: snapshots of states, and buffers that were freed.

        The pools of keys and values are one array a layer, so cached blocks would free nothing and stay.
        """
        self.kv_manager.drop_snapshots()
        mx.clear_cache()
        give_back_freed_buffers()
        self.meter.num_memory_reliefs += 1

    def stats(self) -> EngineStats:
        """A snapshot; any thread may ask."""
        return self.meter.snapshot(
            self.scheduler,
            self.kv_manager,
            self.memory_need,
            self._kv_bytes,
            self._runner.profile.backend,
            self._runner.quantized_products,
            computes_all_logits=self._runner.computes_all_logits,
            speculation=self.speculation.setting,
            tier=None if self._tiering is None else self._tiering.stats(),
        )

    def check_integrity(self) -> None:
        """Assert that the pools are whole and, when nothing is open, that nothing of them is held."""
        self.kv_manager.check_integrity(is_idle=not self._answers.open)

    def _compute(self) -> Batch | None:
        """The step itself; returns what it dispatched."""
        in_flight, self._in_flight = self._in_flight, None
        is_read = in_flight is not None and self._draft(in_flight)
        with self._clock.phase("schedule"):
            if self._tiering is not None:
                self._tiering.step()
            schedule = self._schedule()
        # Dispatched, and not yet waited for.
        forward = None if schedule is None else self._forward(schedule, None if is_read else in_flight)
        if not is_read:
            with self._clock.phase("advance"):
                self._reading.advance(in_flight)  # only here is the last step's token read
        if forward is None:
            if in_flight is None:
                wait_for_grammars(self._answers.open.values())
            return None
        if forward.batch.sampled:
            with self._clock.phase("masks"):
                receivers, bitmask = self._fill_masks(forward.batch)
            if self._answers.open:  # the last one may have ended or failed just now
                self._in_flight = self._sample(forward, receivers, bitmask, is_overlapped=not is_read)
        return forward.batch

    def _draft(self, in_flight: InFlight) -> bool:
        """Read the tokens in flight and draft what may follow them, if that is worth it; whether they were read."""
        if not self.speculation.needs_tokens(in_flight.batch.sampled, self.scheduler.running):
            return False
        with self._clock.phase("advance"):
            self._reading.advance(in_flight)
            self.speculation.give(self.scheduler.running, self._answers.force, self._answers.fail)
        return True

    def _schedule(self) -> Schedule | None:
        """Who runs, with its blocks; one that cannot be scheduled fails."""
        schedule = self.scheduler.schedule()
        for request, fault in self.scheduler.take_failures():
            self._answers.fail(request, fault)
        return schedule

    def _forward(self, schedule: Schedule, in_flight: InFlight | None) -> _Forward:
        """Dispatch what was scheduled."""
        with self._clock.phase("batch"), self._runner.on_device():  # its arrays are views of one
            batch = self._batch_maker.make(schedule, in_flight.receivers if in_flight else ())
        with self._clock.phase("dispatch"):
            return _Forward(batch, self._runner.forward(batch, in_flight.samples.tokens if in_flight else None))

    def _fail_spoiled(self, requests: Sequence[Request]) -> None:
        """Fail requests whose logits are not finite; nobody finds what made them so, on the disk neither."""
        self._recovery.fail_spoiled(requests)
        if self._tiering is not None:
            self._tiering.forget(requests)

    def _fill_masks(self, batch: Batch) -> tuple[Sequence[Request | None], npt.NDArray[np.int32] | None]:
        """Whose next tokens are to be sampled, None where a grammar forces them, and what the grammars allow there."""
        receivers = self._jumps.give(batch.sampled, self._answers.force, self._answers.fail)
        return receivers, fill_masks(receivers, batch.places, self._vocab_size, self._answers.fail)

    def _sample(
        self,
        forward: _Forward,
        receivers: Sequence[Request | None],
        bitmask: npt.NDArray[np.int32] | None,
        *,
        is_overlapped: bool,
    ) -> InFlight:
        """Dispatch the sampling of a forward's logits."""
        with self._clock.phase("parameters"):
            rows = self._sampler.rows(forward.batch.sampled, forward.batch.places)
        with self._clock.phase("sample"), self._runner.on_device():
            samples = dispatch_samples(forward.logits, bitmask, rows)
        for request in receivers:
            if request is not None:
                request.num_in_flight = 0 if request.is_finished else 1
        return InFlight(samples, receivers, forward.batch, is_overlapped)

    def _hand_out(self) -> list[Emission]:
        if not self._answers.open:
            self._in_flight = None  # or an idle engine would hold on to those it served last, and to their callers
        return self._answers.hand_out()

    def _try(self, model: nn.Module, config: EngineConfig, max_model_len: int) -> None:
        """Refuse a model that does not say what it says with mlx-lm's cache; of the trial nothing is left."""
        self.trial(model, config, max_model_len).run()
        self.kv_manager.reset_prefix_cache(())
        self.kv_manager.stats = PrefixStats()

    def _warm_up(self, config: EngineConfig, max_model_len: int) -> None:
        """Compute for nobody, so that no request pays for what MLX compiles when it is first used."""
        packing = self._runner.packing
        for schedule in warm_up_schedules(
            packing.kernel_sizes, packing.padding_block, config.block_size, config.max_tokens_per_step, max_model_len
        ):
            with self._runner.on_device():
                batch = self._batch_maker.make(schedule, ())
            try:
                mx.eval(self._runner.forward(batch, None))
            except UnsupportedKernelError as error:
                raise UnsupportedModelError(str(error)) from None

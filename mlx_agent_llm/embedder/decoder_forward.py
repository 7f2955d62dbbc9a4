"""Causal models over the engine's pages: what texts have in common at their beginning is computed once, and kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.faults import drop_locals
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.forward.trial import Trial
from mlx_agent_llm.core.kv.kv_manager import KVManager, PrefixStats
from mlx_agent_llm.core.kv.memory import pool_sizes
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.step_clock import StepClock
from mlx_agent_llm.embedder.calls import Row, Vectors
from mlx_agent_llm.models.embedders import Decoder
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.request import Request, SamplingParams

_STEP_TOKENS = {mx.cpu: 512, mx.gpu: 4096}
_MAX_ROWS = 128
_BLOCK_SIZE = 16


class DecoderForward:
    """Runs the prompts of a batch to their last tokens, step by step, and reads what the model says there.

    kv_cache_tokens: the size of the pool of keys and values. Used by one thread, as all of MLX.
    """

    min_fill = 0.0  # nothing is padded
    few_tokens = 0
    max_begun = 1

    def __init__(self, decoder: Decoder, device: mx.Device, kv_cache_tokens: int) -> None:
        config = decoder_config(device, kv_cache_tokens)
        pool_tokens = config.kv_cache_tokens
        assert pool_tokens is not None
        with default_device.set_to(device):
            shape = probe_model(decoder.model)
        sizes = pool_sizes(shape.layers, config, pool_tokens, device)
        self.max_tokens = pool_tokens
        self.kv_manager = KVManager(sizes, _BLOCK_SIZE, prefix_cache=True)
        self._scheduler = Scheduler(config, self.kv_manager, pool_tokens)
        clock = StepClock(num_kept=1)
        self._runner = ModelRunner(decoder.model, shape, sizes, _BLOCK_SIZE, clock, device, compile=config.compile)
        self._batch_maker = BatchMaker(_BLOCK_SIZE, self._runner.packing)
        self._read = decoder.read
        self._next_id = itertools.count()
        try:
            self._try(decoder, pool_tokens)
        except BaseException:
            self.close()
            raise

    def begin(self, rows: Sequence[Row]) -> Callable[[], Vectors]:
        """See the class; rows are computed here."""
        requests = [self._request(row) for row in rows]
        for request in requests:
            self._scheduler.add(request)
        found = dict[Request, Vectors]()
        try:
            while len(found) < len(requests):
                found |= self._step()
        except Exception as fault:
            drop_locals(fault)
            self._start_anew()
            raise
        return lambda: np.stack([found[request] for request in requests])

    def close(self) -> None:
        """Give the pools' memory and the model back."""
        self._runner.close()

    def _try(self, decoder: Decoder, max_tokens: int) -> None:
        """Refuse a model that does not say what it says with mlx-lm's cache; of the trial nothing is left."""
        Trial(decoder.model, self._runner, self._scheduler, decoder.vocab_size, _BLOCK_SIZE, max_tokens).run()
        self.kv_manager.reset_prefix_cache(())
        self.kv_manager.stats = PrefixStats()

    def _request(self, row: Row) -> Request:
        params = SamplingParams(max_tokens=1)
        return Request(next(self._next_id), row.token_ids, params, seed=0, sink=lambda delta: None)

    def _step(self) -> dict[Request, Vectors]:
        """One forward, and the vectors of the texts that it brings to their ends, which give back their blocks."""
        schedule = self._scheduler.schedule()
        for _, fault in self._scheduler.take_failures():
            raise fault
        assert schedule is not None, "a text that was let in can be scheduled"
        with self._runner.on_device():
            batch = self._batch_maker.make(schedule, ())
        outputs = self._runner.forward(batch, None)
        if not batch.sampled:
            return {}
        with self._runner.on_device():
            vectors = np.array(self._read(outputs[: len(batch.sampled)]))
        spoiled = [request for request, vector in zip(batch.sampled, vectors, strict=True) if not _is_finite(vector)]
        if spoiled:
            self.kv_manager.withdraw(spoiled, self._scheduler.running)
        for request in batch.sampled:
            self._scheduler.finish(request)
        return dict(zip(batch.sampled, vectors, strict=True))

    def _start_anew(self) -> None:
        """After a fault in a forward nobody knows what the pools hold."""
        self._runner.reset()
        for request in [*self._scheduler.running, *self._scheduler.waiting]:
            self._scheduler.finish(request)
        self.kv_manager.forget()
        self.kv_manager.end_step()


def decoder_config(device: mx.Device, kv_cache_tokens: int) -> EngineConfig:
    """How a causal model is run, over a pool of that many tokens in whole blocks."""
    return EngineConfig(
        max_num_seqs=_MAX_ROWS,
        max_tokens_per_step=_STEP_TOKENS[device.type],
        block_size=_BLOCK_SIZE,
        kv_cache_tokens=-(-kv_cache_tokens // _BLOCK_SIZE) * _BLOCK_SIZE,
    )


def _is_finite(vector: Vectors) -> bool:
    return bool(np.isfinite(vector).all())

"""What the engine counted: steps, tokens, times, blocks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_agent_llm.config import SpeculationSetting
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.fast.quantized_products import QuantizedProduct
from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import KVBytes
from mlx_agent_llm.core.request_meter import RequestMeter, RequestStats
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.step_clock import Phase, StepClock
from mlx_agent_llm.core.tiering.tiering import TierStats
from mlx_agent_llm.process.memory_need import MemoryNeed

_NO_BLOCKS = BlockPool(0)  # of models that have no such layers
_NUM_KEPT_STEPS = 1000  # whose times are remembered


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of the engine since it was made; step times are in seconds, over the last 1,000 steps.

    computes_all_logits: the model's LM head was not found, so it runs for every token and not for sampled ones alone.
    speculation: EngineConfig.speculation.
    quantized_products: how many layers have weights of each quantized form, and whose product multiplies by them.
    memory: bytes of weights, pool and a full step's arrays, a draft model's too, as memory_ledger() counts them.
    kv_cache_bytes: memory for the KV of all layers, taken when the engine starts; window_cache_bytes of it are for
    layers that see a window only, and have blocks of their own (num_window_blocks; 0 where they share the others'), and
    state_cache_bytes are what slots for the states of recurrent layers take when all are used (num_state_slots, of
    which num_state_snapshots hold what prompts can go on from). num_shared_blocks: blocks that more than one running
    request holds. num_pinned_blocks: those that Engine.warm has pinned, which count as used. num_evictions: cached
    blocks that were given up for others. prefix_query_tokens of prompts were looked up; prefix_hit_tokens of them were
    found or shared, prefix_miss_tokens were not, and prefix_hit_rate is the part that was. tokens_per_second: generated
    tokens over the time spent in steps. num_forced_tokens of the generated ones were not sampled: their grammar left no
    choice. num_drafted_tokens were computed ahead of their time, and num_accepted_tokens of them turned out to be what
    was sampled, or forced. num_memory_reliefs: how often freed buffers and snapshots were given back because the system
    had too little memory.
    tier: what was read from the disk and written to it, None without kv_tier.
    mean_phase_times: the mean step by phase (core/step_clock.py names them), with `deliver`, which follows the step, so
    that they add up to a little more than mean_step_time.
    requests: how requests ended, how long they took and how many tokens they had.
    tool_format: how the model calls tools, by name, and from where that is known (as in Engine.tool_format, whose
    warning this is); "" in what the core itself counts, which knows nothing of chats.
    """

    attention_backend: str  # "metal", "cuda" or "reference"
    computes_all_logits: bool
    speculation: SpeculationSetting
    quantized_products: tuple[QuantizedProduct, ...]
    num_waiting: int
    num_running: int
    memory: MemoryNeed
    kv_cache_bytes: int
    window_cache_bytes: int
    state_cache_bytes: int
    num_blocks: int
    num_free_blocks: int
    num_cached_blocks: int
    num_used_blocks: int
    num_shared_blocks: int
    num_pinned_blocks: int
    peak_shared_blocks: int
    num_evictions: int
    num_window_blocks: int
    num_free_window_blocks: int
    num_cached_window_blocks: int
    num_used_window_blocks: int
    num_state_slots: int
    num_free_state_slots: int
    num_state_snapshots: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    prefix_miss_tokens: int
    prefix_hit_rate: float
    num_steps: int
    num_prompt_tokens_computed: int
    num_generated_tokens: int
    num_forced_tokens: int
    num_drafted_tokens: int
    num_accepted_tokens: int
    mean_batch_size: float
    max_batch_size: int
    tokens_per_second: float
    mean_step_time: float
    max_step_time: float
    mean_phase_times: Mapping[Phase, float]
    num_preemptions: int
    num_memory_reliefs: int
    tier: TierStats | None
    requests: RequestStats
    tool_format: str = ""
    tool_format_source: str = ""
    tool_format_warning: str = ""


class StepMeter:
    """Counts as the steps go by."""

    def __init__(self) -> None:
        self.num_generated_tokens = 0
        self.num_forced_tokens = 0
        self.num_memory_reliefs = 0
        self.clock = StepClock(_NUM_KEPT_STEPS)
        self._num_drafted_tokens = 0
        self._num_accepted_tokens = 0
        self.requests = RequestMeter()
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_sampled = 0
        self._num_sampling_steps = 0
        self._max_batch_size = 0
        self._peak_shared_blocks = 0
        self._busy_time = 0.0
        self._step_times: deque[float] = deque(maxlen=_NUM_KEPT_STEPS)
        self._began_at = 0.0

    def begin(self) -> None:
        """A step begins."""
        self.clock.begin()
        self._began_at = time.perf_counter()

    def end(self, batch: Batch | None, kv_manager: KVManager) -> None:
        """The step that began is done; batch is what it dispatched."""
        with self.clock.phase("account"):
            elapsed = time.perf_counter() - self._began_at
            self._busy_time += elapsed
            self._peak_shared_blocks = max(self._peak_shared_blocks, kv_manager.pool.num_shared)
            if batch is not None:
                self._step_times.append(elapsed)
                self._count(batch)

    def count_draft(self, num_tokens: int, num_right: int) -> None:
        """A draft was read."""
        self._num_drafted_tokens += num_tokens
        self._num_accepted_tokens += num_right

    def snapshot(
        self,
        scheduler: Scheduler,
        kv_manager: KVManager,
        memory: MemoryNeed,
        num_bytes: KVBytes,
        attention_backend: str,
        quantized_products: tuple[QuantizedProduct, ...],
        *,
        computes_all_logits: bool,
        speculation: SpeculationSetting,
        tier: TierStats | None,
    ) -> EngineStats:
        """All counts as they are now."""
        pool, prefix, times = kv_manager.pool, kv_manager.stats, list(self._step_times)
        windows = _NO_BLOCKS if kv_manager.windows is None else kv_manager.windows.pool
        states = _NO_BLOCKS if kv_manager.states is None else kv_manager.states.pool
        return EngineStats(
            attention_backend=attention_backend,
            computes_all_logits=computes_all_logits,
            speculation=speculation,
            quantized_products=quantized_products,
            num_waiting=len(scheduler.waiting),
            num_running=len(scheduler.running),
            memory=memory,
            kv_cache_bytes=sum(num_bytes),
            window_cache_bytes=num_bytes.window,
            state_cache_bytes=num_bytes.states,
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_cached_blocks=pool.num_cached,
            num_used_blocks=pool.num_used,
            num_shared_blocks=pool.num_shared,
            num_pinned_blocks=kv_manager.pins.num_held(pool),
            peak_shared_blocks=self._peak_shared_blocks,
            num_evictions=pool.num_evictions,
            num_window_blocks=windows.num_blocks,
            num_free_window_blocks=windows.num_free,
            num_cached_window_blocks=windows.num_cached,
            num_used_window_blocks=windows.num_used,
            num_state_slots=states.num_blocks,
            num_free_state_slots=states.num_free,
            num_state_snapshots=states.num_findable,
            prefix_query_tokens=prefix.query_tokens,
            prefix_hit_tokens=prefix.hit_tokens,
            prefix_miss_tokens=prefix.query_tokens - prefix.hit_tokens,
            prefix_hit_rate=prefix.hit_tokens / max(prefix.query_tokens, 1),
            num_steps=self._num_steps,
            num_prompt_tokens_computed=self._num_prompt_tokens,
            num_generated_tokens=self.num_generated_tokens,
            num_forced_tokens=self.num_forced_tokens,
            num_drafted_tokens=self._num_drafted_tokens,
            num_accepted_tokens=self._num_accepted_tokens,
            mean_batch_size=self._num_sampled / max(self._num_sampling_steps, 1),
            max_batch_size=self._max_batch_size,
            tokens_per_second=self.num_generated_tokens / self._busy_time if self._busy_time else 0.0,
            mean_step_time=sum(times) / len(times) if times else 0.0,
            max_step_time=max(times, default=0.0),
            mean_phase_times=self.clock.mean_seconds(),
            num_preemptions=scheduler.num_preemptions,
            num_memory_reliefs=self.num_memory_reliefs,
            tier=tier,
            requests=self.requests.snapshot(),
        )

    def _count(self, batch: Batch) -> None:
        num_sampled = batch.num_streams
        self.clock.keep(num_sampled, batch.num_prompt_tokens)
        self._num_steps += 1
        self._num_prompt_tokens += batch.num_prompt_tokens
        self._num_sampled += num_sampled
        self._num_sampling_steps += bool(num_sampled)
        self._max_batch_size = max(self._max_batch_size, num_sampled)

"""Tiering: the one face of the tier for the loop. Between two steps blocks are copied to the disk and brought back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.tier.segment import segment_bytes
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.step_clock import StepClock
from mlx_agent_llm.core.tiering.contents import Contents
from mlx_agent_llm.core.tiering.keys import GroupPools, TierKeys
from mlx_agent_llm.core.tiering.restore import Restore
from mlx_agent_llm.core.tiering.spill import Spill
from mlx_agent_llm.errors import KVTierError
from mlx_agent_llm.request import Request

_MAX_CHAINS = 4096  # that wait to be copied; the oldest ones are given up


class Tier(NamedTuple):
    """A store and the fingerprint that the keys of this engine's model begin with."""

    store: TierStore
    model: bytes


@dataclass(frozen=True)
class TierStats:
    """What an engine has read from the disk and written to it.

    num_bytes: of all that is there, of whatever model. num_hit_tokens of prompts were brought back, in read_seconds,
    which end when they are in the pool; requests may compute beside that. fault: why nothing is written any more.
    is_writer: no other process writes.
    """

    num_bytes: int
    num_written_bytes: int
    num_read_bytes: int
    num_hit_tokens: int
    read_seconds: float
    is_writer: bool
    fault: str | None


class Tiering:
    """Copies what requests leave behind to the disk, and brings back what others begin with."""

    def __init__(
        self,
        tier: Tier,
        kv_manager: KVManager,
        runner: ModelRunner,
        scheduler: Scheduler,
        clock: StepClock,
        max_num_seqs: int,
    ) -> None:
        chains = deque[Sequence[bytes]](maxlen=_MAX_CHAINS)
        contents = Contents(runner, kv_manager.block_size)
        keys = TierKeys(tier.model, contents.layout)
        kinds = GroupPools.of(kv_manager).by_kind()
        smallest = segment_bytes([contents.block_bytes(kind) for kind in kinds if kind != "state"])
        if tier.store.max_bytes < smallest:
            raise KVTierError(
                f"kv_tier_bytes={tier.store.max_bytes} must be at least {smallest}, which a segment of one block takes"
            )
        self._store, self._keys = tier.store, keys
        self._scheduler, self._clock, self._max_num_seqs = scheduler, clock, max_num_seqs
        self._spill = Spill(GroupPools.of(kv_manager), contents, tier.store, keys, chains)
        self._restore = Restore(kv_manager, contents, tier.store, keys)
        self._pins, self._kinds = kv_manager.pins, kinds
        self._pinned: frozenset[bytes] = frozenset()  # hashes that the store knows as pinned
        kv_manager.left_behind = chains

    @property
    def has_work(self) -> bool:
        """Whether anything is to be copied or brought back."""
        return self._spill.has_work or self._restore.has_work

    def step(self) -> None:
        """Go on with both; to be called before requests are scheduled."""
        self._pin()
        running, waiting = self._scheduler.running, self._scheduler.waiting
        candidates = waiting[: self._max_num_seqs - len(running)]
        self._restore.step(running, waiting)
        self._restore.look(candidates, self._tokens_per_second())
        self._spill.step(is_idle=not running and not waiting)

    def forget(self, requests: Iterable[Request]) -> None:
        """Let nobody find what these have read or computed."""
        self._store.forget(self._keys.of("full", one) for request in requests for one in request.kv.block_hashes)

    def drop(self) -> None:
        """After a fault: the pools that blocks were brought back to are no more."""
        self._restore.drop()

    def clear(self) -> None:
        """Forget everything of this model, on the disk too."""
        self._restore.drop()
        self._store.clear()

    def close(self) -> None:
        """Write what is left and end the threads."""
        self._restore.close()
        self._spill.finish()
        self._store.close()

    def stats(self) -> TierStats:
        """A snapshot; any thread may ask."""
        return TierStats(
            num_bytes=self._store.num_bytes,
            num_written_bytes=self._spill.writer.num_written_bytes,
            num_read_bytes=self._restore.num_read_bytes,
            num_hit_tokens=self._restore.num_hit_tokens,
            read_seconds=self._restore.read_seconds,
            is_writer=self._store.is_writer,
            fault=self._store.fault,
        )

    def _pin(self) -> None:
        """Tell the store what is pinned, where that has changed."""
        if self._pinned is not self._pins.hashes:
            self._pinned = self._pins.hashes
            self._store.pinned = frozenset(self._keys.of(kind, one) for kind in self._kinds for one in self._pinned)

    def _tokens_per_second(self) -> float | None:
        """What prompts were computed at in the remembered steps, None before the first."""
        records = [record for record in self._clock.records if record.num_prompt_tokens]
        if not records:
            return None
        return sum(record.num_prompt_tokens for record in records) / sum(
            sum(record.seconds.values()) for record in records
        )

"""Prompts that stay in the pools until somebody says otherwise. Knows no schedule and no disk.

A pin has its room from the moment on at which it is asked for, and its blocks when the request that computes them ends.
It takes references, as a request does, so that nothing of it is evicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.core.kv.state_slots import StateSlots
from mlx_agent_llm.core.kv.window_blocks import WindowBlocks
from mlx_agent_llm.errors import CapacityError
from mlx_agent_llm.request import Request

MAX_PART = 2  # pins get one part of so many of a pool: the others are for what runs


class _Held(NamedTuple):
    """References to blocks or slots of a pool."""

    pool: BlockPool
    ids: Sequence[int]

    @property
    def is_findable(self) -> bool:
        return all(map(self.pool.has_hash, self.ids))


@dataclass(eq=False)
class _Pin:
    """hashes: of the prompt's full blocks, and, when they are held, of those that others can go on after."""

    hashes: Sequence[bytes]
    held: list[_Held] = field(default_factory=list)


class Pins:
    """What is pinned, by the ids of the requests that compute it."""

    def __init__(
        self, pool: BlockPool, windows: WindowBlocks | None, states: StateSlots | None, hashes: PrefixHashes
    ) -> None:
        self.hashes: frozenset[bytes] = frozenset()  # of all blocks that are pinned or will be; another set at a change
        self._pool = pool
        self._windows = windows
        self._states = states
        self._prefix_hashes = hashes
        self._pins: dict[int, _Pin] = {}

    def reserve(self, requests: Sequence[Request]) -> None:
        """Keep room for what these requests compute; CapacityError, and nothing is changed, where it is too much."""
        new = {request.request_id: _Pin(self._hashes_of(request)) for request in requests}
        self._check([*self._pins.values(), *new.values()])
        self._pins |= new
        self._note()

    def settle(self, request: Request) -> None:
        """Hold what a request with room here leaves behind; one that failed or was cancelled leaves its room."""
        if request.request_id not in self._pins:
            return
        if request.finish_reason in ("cancelled", "error"):
            self.drop([request.request_id])
        else:
            self._hold(self._pins[request.request_id])

    def drop(self, request_ids: Iterable[int] | None = None) -> None:
        """Pin these no longer, or nothing where none are named; ids that are not here are nothing."""
        for request_id in list(self._pins if request_ids is None else request_ids):
            pin = self._pins.pop(request_id, None)
            for pool, ids in () if pin is None else pin.held:
                pool.release(ids)
        self._note()

    def drop_lost(self) -> None:
        """Pin no longer what nobody can find any more."""
        self.drop([number for number, pin in self._pins.items() if not all(held.is_findable for held in pin.held)])

    def num_tokens(self, request_id: int) -> int:
        """How many tokens of a pinned prompt others can go on after; 0 of what is not pinned."""
        pin = self._pins.get(request_id)
        return 0 if pin is None else len(pin.hashes) * self._prefix_hashes.block_size

    def num_held(self, pool: BlockPool) -> int:
        """How many blocks or slots of a pool are pinned."""
        held = [held for pin in list(self._pins.values()) for held in pin.held if held.pool is pool]
        return len({one for each in held for one in each.ids})

    def num_shared(self, request: Request, num_blocks: int) -> int:
        """How many of a request's first blocks are pinned, or will be."""
        count = 0
        while count < num_blocks and self._prefix_hashes.is_known(request, count):
            if self._prefix_hashes.of(request, count) not in self.hashes:
                break
            count += 1
        return count

    def _hashes_of(self, request: Request) -> list[bytes]:
        """Those of full blocks, up to the end of a chat's last message: others do not have what its template adds."""
        end = request.message_ends[-1] if request.message_ends else request.num_prompt_tokens
        return [self._prefix_hashes.of(request, index) for index in range(end // self._prefix_hashes.block_size)]

    def _check(self, pins: Sequence[_Pin]) -> None:
        block_size = self._prefix_hashes.block_size
        _check_part("tokens", len({one for pin in pins for one in pin.hashes}), self._pool, block_size)
        if self._windows is not None:
            seen = {pin.hashes[i] for pin in pins for i in self._windows.seen_after(len(pin.hashes))}
            _check_part("tokens of layers with a window", len(seen), self._windows.pool, block_size)
        if self._states is not None:
            _check_part("states", len({pin.hashes[-1] for pin in pins if pin.hashes}), self._states.pool, 1)

    def _hold(self, pin: _Pin) -> None:
        """Take references to all that the last border needs at which every group of layers can go on."""
        blocks = _find_all(self._pool, pin.hashes)
        for border in range(len(blocks), 0, -1):
            needed = [_Held(self._pool, blocks[:border])]
            if self._windows is not None:
                seen = [pin.hashes[index] for index in self._windows.seen_after(border)]
                needed.append(_Held(self._windows.pool, _find_all(self._windows.pool, seen)))
                if len(needed[-1].ids) < len(seen):
                    continue
            if self._states is not None:
                needed.append(_Held(self._states.pool, _find_all(self._states.pool, [pin.hashes[border - 1]])))
                if not needed[-1].ids:
                    continue
            for pool, ids in needed:
                for one in ids:
                    pool.share(one)
            pin.held = needed
            break
        pin.hashes = pin.hashes[: len(pin.held[0].ids) if pin.held else 0]
        self._note()

    def _note(self) -> None:
        self.hashes = frozenset(one for pin in self._pins.values() for one in pin.hashes)


def _find_all(pool: BlockPool, hashes: Sequence[bytes]) -> list[int]:
    """Where the leading ones of these are, up to the first that is nowhere."""
    found = list[int]()
    for block_hash in hashes:
        block_id = pool.find(block_hash)
        if block_id is None:
            break
        found.append(block_id)
    return found


def _check_part(what: str, count: int, pool: BlockPool, each: int) -> None:
    most = pool.num_blocks // MAX_PART
    if count > most:
        raise CapacityError(
            f"{count * each} {what} would be pinned, and at most {most * each} of the {pool.num_blocks * each} that "
            "the KV pool holds may be"
        )

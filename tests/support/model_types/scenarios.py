"""The ways in which requests meet: ragged rows, chunks, late joiners, prefix hits, forks, preemptions, forced runs.

Each round of a scenario runs on the core that the rounds before it left, with what they put into its prefix cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.model_types.dimensions import VOCAB_SIZE

NUM_NEW = 10
BLOCK = 16


@dataclass(frozen=True)
class Arrival:
    """A prompt, the step at which it comes, and the index of the open request that it goes on from, if any.

    forced: output index -> the token that its grammar leaves no choice about.
    """

    prompt: Sequence[int]
    step: int = 0
    forks: int | None = None
    forced: Mapping[int, int] = field(default_factory=dict)
    max_tokens: int = NUM_NEW


@dataclass(frozen=True)
class Scenario:
    """Rounds of arrivals on one core. must: what has to have happened, or nothing was tested."""

    name: str
    rounds: Sequence[Sequence[Arrival]]
    config: Mapping[str, Any]
    must: str | None = None


def random_tokens(count: int, seed: int = 0) -> list[int]:
    """Token ids of the tiny models' vocabulary."""
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, count).tolist()


_LARGE = {"kv_cache_tokens": 2048, "max_num_seqs": 8, "max_tokens_per_step": 128, "block_size": BLOCK}
_SMALL = _LARGE | {"max_tokens_per_step": 8}
_COMMON = random_tokens(96, seed=1)
_RAGGED = [random_tokens(count, seed=count) for count in (1, 5, 16, 33, 50, 70)]


def all_scenarios() -> list[Scenario]:
    """Every way, the cheap ones first."""
    return [
        Scenario("1 row", [[Arrival(_RAGGED[4])]], _LARGE),
        Scenario("6 rows, large chunks", [[Arrival(prompt) for prompt in _RAGGED]], _LARGE),
        Scenario("6 rows, small chunks, late joiners", [_late_joiners()], _SMALL),
        Scenario("prefix hits", _prefix_hits(), _LARGE, must="num_cached_tokens"),
        Scenario("forks", [_forks()], _LARGE),
        Scenario("preemption", [_growing()], _LARGE | {"kv_cache_tokens": 9 * BLOCK}, must="num_preemptions"),
        Scenario("forced run", [_forced_runs()], _LARGE, must="num_jumped_tokens"),
    ]


def _late_joiners() -> list[Arrival]:
    return [Arrival(prompt, step=3 * index) for index, prompt in enumerate(reversed(_RAGGED))]


def _prefix_hits() -> list[list[Arrival]]:
    """The same prompt again, and prompts that part from it at, before and after a block's border and in its middle."""
    counts = (80, 79, 81, 64, 72, 33)
    others = [_COMMON[:count] + random_tokens(4, seed=count) for count in counts]
    return [
        [Arrival(_COMMON[:80])],
        [Arrival(_COMMON[:80])],
        [Arrival(prompt, step=index // 2) for index, prompt in enumerate(others)],
        [Arrival(_COMMON)],
    ]


def _forks() -> list[Arrival]:
    """A second sample of one prompt, which shares its KV, and a branch that goes on from what was said so far."""
    prompt = _COMMON[:37]
    return [Arrival(prompt), Arrival(prompt), Arrival(prompt, step=5, forks=0), Arrival(_RAGGED[1], step=6)]


def _growing() -> list[Arrival]:
    """Four rows that fit into eight blocks when they come, and take twelve in the end."""
    return [Arrival(random_tokens(count, seed=count), step=index) for index, count in enumerate((30, 29, 31, 28))]


def _forced_runs() -> list[Arrival]:
    run = dict(enumerate(random_tokens(5, seed=9), start=3))
    return [Arrival(_COMMON[:20], forced=run), Arrival(_RAGGED[2]), Arrival(_COMMON[:61], forced=run)]

"""What is measured: prompts of random tokens with a fixed seed, and how many tokens each gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """Prompts that arrive together, each continued by num_new tokens whatever it says."""

    name: str
    prompts: list[list[int]]
    num_new: int


def make_workload(name: str, vocab_size: int, rows: int | None = None, seed: int = 0) -> Workload:
    """Make one of WORKLOADS; rows replaces its own number of requests."""
    generator = random.Random(seed)
    return WORKLOADS[name](lambda length: [generator.randrange(vocab_size // 2) for _ in range(length)], rows)


Tokens = Callable[[int], list[int]]


def _single(tokens: Tokens, rows: int | None) -> Workload:
    """One stream: 512 prompt tokens, 128 new ones."""
    return Workload("single", [tokens(512) for _ in range(rows or 1)], 128)


def _batch(tokens: Tokens, rows: int | None) -> Workload:
    """Short prompts of 16 to 47 tokens, 64 new ones."""
    return Workload("batch", [tokens(16 + index % 32) for index in range(rows or 32)], 64)


def _agents(tokens: Tokens, rows: int | None) -> Workload:
    """Agents with one system prompt of 1,024 tokens and 64 of their own, 64 new ones."""
    system = tokens(1024)
    return Workload("agents", [system + tokens(64) for _ in range(rows or 16)], 64)


WORKLOADS: Mapping[str, Callable[[Tokens, int | None], Workload]] = {
    "single": _single,
    "batch": _batch,
    "agents": _agents,
}

"""Whether a model fits beside what this process takes already: a sum that is compared before any weight is read."""

from __future__ import annotations

from typing import NamedTuple

from mlx_agent_llm.errors import CapacityError
from mlx_agent_llm.process.device_memory import GIB
from mlx_agent_llm.process.memory_ledger import memory_ledger


class MemoryNeed(NamedTuple):
    """Bytes that a model needs at least.

    step: arrays of a full step. MLX's cache is made of them once they are freed, and what else it keeps MLX gives back
    before its memory limit is reached.
    """

    weights: int
    pool: int
    step: int

    def with_draft_model(self, draft: MemoryNeed) -> MemoryNeed:
        """What both need: their steps take turns."""
        return MemoryNeed(self.weights + draft.weights, self.pool + draft.pool, max(self.step, draft.step))


def check_fits(name: str, need: MemoryNeed, available: int, advice: str) -> None:
    """Raise a CapacityError with the sum where a model and all that this process takes are more than is available."""
    ledger = memory_ledger()
    total = sum(need) + ledger.total
    if total <= available:
        return
    models = f" ({ledger.describe_models()})" if ledger.models else ""
    raise CapacityError(
        f"{name} does not fit: {need.weights / GIB:.2f} GiB of weights, {need.pool / GIB:.2f} of the KV pool, "
        f"{need.step / GIB:.2f} of a step and {ledger.total / GIB:.2f} that this process takes already{models} are "
        f"{total / GIB:.2f} GiB, and {available / GIB:.2f} GiB may be used. {advice}"
    )

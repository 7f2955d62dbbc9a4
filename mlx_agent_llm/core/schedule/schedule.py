"""One step's work, as the scheduler hands it on: which tokens of which requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mlx_agent_llm.core.kv.kv_manager import StepChanges
from mlx_agent_llm.request import Request


class Chunk(NamedTuple):
    """The tokens [start, start + length) of a request that one forward computes."""

    request: Request
    start: int
    length: int
    is_sampled: bool  # it ends with the request's last token, or its draft's, after which the next one is sampled


@dataclass(frozen=True)
class Schedule:
    """One step's work: single-token chunks, which attend as decode rows, and longer ones."""

    rows: list[Chunk]
    prompts: list[Chunk]
    changes: StepChanges = field(default_factory=StepChanges)
    num_prompt_tokens: int = 0  # of prompts, and of streams that have to be computed again

    @property
    def chunks(self) -> list[Chunk]:
        """All, in the order of the packed tokens."""
        return self.rows + self.prompts

"""The memory that a draft model takes beside the model that it drafts for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import mlx.nn as nn

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.step_memory import parameter_bytes, step_bytes
from mlx_agent_llm.core.kv.layer_shape import LayerShape, token_bytes
from mlx_agent_llm.core.schedule.speculation.draft_model import CHUNK
from mlx_agent_llm.process.memory_need import MemoryNeed


class DraftParts(NamedTuple):
    """A draft model with its weights in bytes, what each of its layers keeps, and the width of its logits."""

    model: nn.Module
    weights: int
    layers: Sequence[LayerShape]
    vocab_size: int

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Those of a model that is in memory; an UnsupportedModelError where its layers are not known."""
        shape = probe_model(model)
        return cls(model, parameter_bytes(model), shape.layers, shape.vocab_size)

    @property
    def token_bytes(self) -> int:
        """What its caches take for a token."""
        return token_bytes(self.layers)

    def need(self, num_tokens: int, config: EngineConfig) -> MemoryNeed:
        """With caches of num_tokens in all, and the chunk of a prompt that it computes at once."""
        one_chunk = replace(config, max_tokens_per_step=CHUNK, max_num_seqs=1)
        step = step_bytes(self.model, self.layers, self.vocab_size, one_chunk)
        return MemoryNeed(self.weights, num_tokens * self.token_bytes, step)

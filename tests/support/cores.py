"""Cores without a thread, whose steps are the test's, over tiny models."""

from collections.abc import Callable
from typing import Any

import mlx.nn as nn

from mlx_agent_llm import EngineConfig, SamplingParams
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.request import Request


def make_core(model: nn.Module, draft_model: nn.Module | None = None, **config: Any) -> EngineCore:
    settings = EngineConfig(**({"kv_cache_tokens": 1024, "max_tokens_per_step": 64, "check_model": False} | config))
    vocabulary = Vocabulary([b""] * 258, frozenset())
    return EngineCore(model, probe_model(model), vocabulary, settings, 512, draft_model=draft_model)


def run(core: EngineCore, *prompts: list[int], each_step: Callable[[], None] = lambda: None) -> list[list[int]]:
    """Each prompt continued by ten tokens; the error of a request that fails is raised."""
    outputs: list[list[int]] = [[] for _ in prompts]
    for index, prompt in enumerate(prompts):
        core.add(Request(index, prompt, SamplingParams(max_tokens=10), 0, lambda delta: None))
    while core.has_work:
        for request, delta in core.step():
            if delta.error is not None:
                raise delta.error
            outputs[request.request_id] += delta.token_ids
        each_step()
    return outputs

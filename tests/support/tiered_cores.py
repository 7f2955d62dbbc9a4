"""Cores with a tier on disk over tiny models, whose steps are the test's, and what they have to say."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import mlx.nn as nn
import numpy as np

from mlx_agent_llm import EngineConfig, SamplingParams
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.core.tiering.tiering import Tier
from mlx_agent_llm.request import Request
from tests.support.model_types.dimensions import VOCAB_SIZE
from tests.support.model_types.tiny import tiny
from tests.support.tiers import MODEL, open_store
from tests.whole.test_parity import reference

MODELS = ["llama", "gemma3_text", "gpt_oss", "deepseek_v3", "mamba2", "qwen3_next", "recurrent_gemma"]
NUM_NEW = 6


@lru_cache
def model_of(model_type: str) -> nn.Module:
    return tiny(model_type)


def make_core(
    path: Path, model_type: str = "llama", model: bytes = MODEL, max_bytes: int = 2**26, **config: int
) -> EngineCore:
    settings = EngineConfig(**({"max_num_seqs": 4, "kv_cache_tokens": 1024, "check_model": False} | config))
    served = model_of(model_type)
    tier = Tier(open_store(path, max_bytes, model), model)
    return EngineCore(
        served, probe_model(served), Vocabulary([b""] * VOCAB_SIZE, frozenset()), settings, 512, tier=tier
    )


def prompts(count: int, num_common: int = 100, num_own: int = 30) -> list[list[int]]:
    rng = np.random.default_rng(0)
    common = rng.integers(0, VOCAB_SIZE, num_common).tolist()
    return [common + rng.integers(0, VOCAB_SIZE, num_own).tolist() for _ in range(count)]


def run(core: EngineCore, asked: Sequence[list[int]], salt: str | None = None) -> list[Request]:
    """Each prompt continued by some tokens, greedily."""
    params = SamplingParams(max_tokens=NUM_NEW, temperature=0, cache_salt=salt)
    requests = [Request(number, prompt, params, 0, lambda delta: None) for number, prompt in enumerate(asked)]
    for request in requests:
        core.add(request)
    while core.has_work:
        for _, delta in core.step():
            assert delta.error is None
    core.check_integrity()
    return requests


def output_of(request: Request) -> tuple[int, ...]:
    return tuple(request.token_ids[request.num_prompt_tokens :])


@lru_cache
def _expected(model_type: str, prompt: tuple[int, ...]) -> tuple[int, ...]:
    return reference(model_of(model_type), prompt, NUM_NEW)


def assert_is_right(requests: Sequence[Request], model_type: str = "llama") -> None:
    for request in requests:
        expected = _expected(model_type, tuple(request.prompt_token_ids))
        assert output_of(request)[: len(expected)] == expected[:NUM_NEW]


def serve(path: Path, asked: Sequence[list[int]], model_type: str = "llama", **options: object) -> list[Request]:
    """In an engine of its own, which ends."""
    core = make_core(path, model_type, **options)  # type: ignore[arg-type]
    try:
        requests = run(core, asked)
    finally:
        core.close()
    assert_is_right(requests, model_type)
    return requests


def block_bytes(core: EngineCore) -> int:
    return core.stats().kv_cache_bytes // core.stats().num_blocks

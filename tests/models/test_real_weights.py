"""Real weights against mlx-lm: those of the directory, .gguf file or hub id that MLX_AGENT_TEST_MODEL names."""

import os
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.models import LoadedModel, load_model
from tests.support.model_types.reference import Reference

DIRECTORY = os.environ.get("MLX_AGENT_TEST_MODEL")
pytestmark = pytest.mark.skipif(DIRECTORY is None, reason="MLX_AGENT_TEST_MODEL names no model")
TEXTS = ("The capital of France is", "1, 2, 3, 4,", "def fibonacci(n):\n    ", "Once upon a time")
NUM_NEW = 24
NEAR_TIE = 0.05  # of two logarithms: in 16 bits, what is closer may change places


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    assert DIRECTORY is not None
    return load_model(DIRECTORY)


@pytest.fixture(scope="module")
def engine(loaded: LoadedModel) -> Iterator[Engine]:
    length = min(loaded.max_model_len or 4096, 4096)
    with Engine(loaded, EngineConfig(max_model_len=length, max_num_seqs=8)) as engine:
        yield engine


def test_its_texts_are_mlx_lm_s_up_to_ties_alone_and_together(loaded: LoadedModel, engine: Engine) -> None:
    prompts = [loaded.tokenizer.encode(text) for text in TEXTS]
    params = SamplingParams(max_tokens=NUM_NEW, temperature=0, ignore_eos=True)
    alone = [engine.generate([prompt], params)[0].token_ids for prompt in prompts]
    engine.reset_prefix_cache()
    together = [output.token_ids for output in engine.generate(prompts, params)]
    reference = Reference(loaded.model)
    for prompt, *outputs in zip(prompts, alone, together, strict=True):
        for found in outputs:
            for token_id, step in zip(found, reference.continuation(prompt, NUM_NEW), strict=True):
                assert step.logprobs[step.token_id] - step.logprobs[token_id] < NEAR_TIE
                if token_id != step.token_id:
                    break  # a tie: what follows is another text


def test_its_longest_window_and_more_are_read_as_mlx_lm_reads_them(loaded: LoadedModel, engine: Engine) -> None:
    """A long prompt, in chunks, and again from the prefix cache."""
    generator = np.random.default_rng(0)
    prompt = generator.integers(0, min(loaded.vocab_size, loaded.tokenizer.vocab_size), 1500).tolist()
    cache = make_prompt_cache(loaded.model)
    expected = loaded.model(mx.array([prompt]), cache=cache)[0, -1].astype(mx.float32)
    logprobs = np.array(expected - mx.logsumexp(expected))
    for _ in range(2):
        output = engine.generate([prompt], SamplingParams(max_tokens=1, temperature=0, ignore_eos=True))[0]
        assert logprobs.max() - logprobs[output.token_ids[0]] < NEAR_TIE
    assert output.usage.cached_tokens > 1000

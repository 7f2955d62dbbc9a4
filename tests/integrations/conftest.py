"""What the tests of both frameworks share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_agent_llm import Reranker
from tests.support.embedders import write_tiny_cross_encoder


@pytest.fixture(scope="module")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder's."""
    folder = tmp_path_factory.mktemp("reranker")
    write_tiny_cross_encoder(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def reranker(reranker_folder: Path) -> Iterator[Reranker]:
    """The one of that folder."""
    with Reranker.load(str(reranker_folder)) as reranker:
        yield reranker

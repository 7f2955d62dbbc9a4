"""Engines that several files of tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlx_agent_llm import Engine
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.langchain_chats import CONFIG


@pytest.fixture(scope="module")
def random_engine() -> Iterator[Engine]:
    model = RandomLogitsModel()
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield engine

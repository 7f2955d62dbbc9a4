"""LangChain's own unit tests for chat models; they construct ChatMLXAgent and never load its model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_mlx_agent import ChatMLXAgent


@pytest.mark.filterwarnings("ignore:api_key has no effect without base_url")
class TestChatMLXAgent(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatMLXAgent]:
        return ChatMLXAgent

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "demo"}

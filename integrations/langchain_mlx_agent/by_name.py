"""Chat models by name, for code that has names alone."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_mlx_agent.chat_model import ChatMLXAgent

PREFIX = "mlx_agent:"


def init_chat_model(model: str, **parameters: Any) -> BaseChatModel:
    """LangChain's init_chat_model, which knows "mlx_agent:NAME" too: a ChatMLXAgent of that model.

    LangChain has no registration for providers of others. create_agent takes what this returns.
    """
    if model.startswith(PREFIX):
        return ChatMLXAgent(model=model.removeprefix(PREFIX), **parameters)
    from langchain.chat_models import init_chat_model as of_langchain

    chat: BaseChatModel = of_langchain(model, **parameters)
    return chat

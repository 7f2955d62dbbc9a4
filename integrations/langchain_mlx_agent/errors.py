"""Errors that are ours and LangChain's own at the same time, so that handlers written for either catch them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError

from mlx_agent_llm.errors import ContextLengthError


class ChatContextLengthError(ContextLengthError, ContextOverflowError):
    """The messages, with room for one new token, do not fit the context."""


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the engine's errors as LangChain's where it has a type for them that every supported version knows."""
    try:
        yield
    except ContextLengthError as error:
        raise ChatContextLengthError(*error.args) from error

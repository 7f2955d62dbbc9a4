"""What calls raise in place of ValueErrors.

LlamaIndex's synthesizers take a ValueError for an answer that did not parse: they log it and go on with "Empty
Response". What is wrong with a call must not end there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlx_agent_llm.chat.foreign_names import with_reasoning_named
from mlx_agent_llm.errors import MLXAgentError, RequestError


class LLMRequestError(MLXAgentError):
    """A call that cannot be served as it was asked; __cause__ is the engine's RequestError."""


class AnswerError(MLXAgentError):
    """An answer that is not what was asked for: without a tool call, with one that broke off, or no valid object."""


@contextmanager
def llm_errors() -> Iterator[None]:
    """Raise the engine's RequestErrors, which are ValueErrors, as LLMRequestErrors."""
    try:
        yield
    except RequestError as error:
        raise LLMRequestError(with_reasoning_named(str(error))) from error

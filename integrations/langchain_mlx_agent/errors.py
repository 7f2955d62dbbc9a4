"""The engine's errors as LangChain's own at the same time, so that handlers written for either catch them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from mlx_agent_llm.chat.foreign_names import with_reasoning_named
from mlx_agent_llm.errors import (
    ContextLengthError,
    GenerationError,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
)

_KINDS: tuple[tuple[type[MLXAgentError], type[ModelError]], ...] = (
    (ContextLengthError, ContextOverflowError),
    (RequestError, ModelInvalidRequestError),
    (QueueFullError, ModelRateLimitError),
    (RequestTimeout, ModelTimeoutError),
    (GenerationError, ModelAPIError),
    (ModelLoadError, ModelNotFoundError),
    (MLXAgentError, ModelError),
)
"""The first that fits counts. Their is_retryable tells LangChain's retries what is worth another try."""


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise every error of the engine as one of a class that is LangChain's too."""
    try:
        yield
    except MLXAgentError as error:
        if isinstance(error, ModelError):
            raise
        raise _as_both(error) from error


def _as_both(error: MLXAgentError) -> MLXAgentError:
    both = _class_of_both(type(error))  # type: ignore[arg-type]  # mypy looks at the instances' __hash__
    copy = both.__new__(both, *error.args)  # __init__ may want other arguments than those that it left in args
    copy.args = tuple(map(_as_written, error.args))
    copy.__dict__.update(error.__dict__)
    return copy


@cache
def _class_of_both(ours: type[MLXAgentError]) -> type[MLXAgentError]:
    theirs = next(theirs for kind, theirs in _KINDS if issubclass(ours, kind))
    return type(ours.__name__, (ours, theirs), {"__module__": __name__, "__doc__": ours.__doc__})


def _as_written(argument: object) -> object:
    """A message with the name that the parameter has here."""
    return with_reasoning_named(argument) if isinstance(argument, str) else argument

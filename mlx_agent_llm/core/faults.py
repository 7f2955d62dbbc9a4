"""What an exception of any kind means for the requests that it strikes, and what it must not keep alive."""

from __future__ import annotations

import traceback

from mlx_agent_llm.errors import GenerationError, MLXAgentError


def as_error(fault: Exception) -> MLXAgentError:
    """The fault as the caller gets it: a GenerationError with the fault as its cause, if it is none of ours."""
    if isinstance(fault, MLXAgentError):
        return fault
    error = GenerationError(f"{type(fault).__name__}: {fault}")
    error.__cause__ = fault
    return error


def drop_locals(fault: BaseException | None) -> None:
    """Empty the frames that a fault came through: they hold the pools, and whoever keeps the error keeps them."""
    while fault is not None:
        traceback.clear_frames(fault.__traceback__)
        fault = fault.__cause__ or fault.__context__

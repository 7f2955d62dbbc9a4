"""What a model's own code may raise while an engine is made, as the refusal of that model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.nn as nn

from mlx_agent_llm.errors import MLXAgentError, UnsupportedModelError

_OUT_OF_MEMORY = ("alloc", "out of memory")  # in what MLX says of it, on any device


@contextmanager
def refuse_faults_of(model: nn.Module) -> Iterator[None]:
    """A context in which a model's code runs: what it raises is an UnsupportedModelError, but for want of memory."""
    try:
        yield
    except (MLXAgentError, MemoryError):
        raise
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        raise UnsupportedModelError(
            f"{type(model).__module__}: it cannot be run over paged layers: {type(error).__name__}: {error}"
        ) from error

"""Modules that compute attention themselves, which take packed tokens sequence by sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_agent_llm.core.forward.fast.adaptation import Form
from mlx_agent_llm.core.forward.layers.gathered import gathered_layers, run_by_sequences


class RunBySequences(Form):
    """The form of a module that is given a GatheredLayer; with any other cache it computes as ever."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See the class."""
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        if gathered_layers([*arguments, *options.values()]):
            return run_by_sequences(call, arguments, options)
        return call(*arguments, **options)

"""Modules with a recurrent state, which take packed tokens only through the layer that keeps the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_agent_llm.core.forward.fast.adaptation import Form
from mlx_agent_llm.core.forward.layers.state import StateLayer


class RunByStates(Form):
    """The form of a module that is given a StateLayer; with any other cache it computes as ever."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See the class."""
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        layer = next((value for value in (*arguments, *options.values()) if isinstance(value, StateLayer)), None)
        return call(*arguments, **options) if layer is None else layer.run(call, arguments, options)

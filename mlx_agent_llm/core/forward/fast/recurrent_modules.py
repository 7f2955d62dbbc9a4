"""Modules with a recurrent state, which take packed tokens only through the layer that keeps the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.nn as nn

from mlx_agent_llm.core.forward.fast.adaptation import Adapt, Adaptation, Form
from mlx_agent_llm.core.forward.layers.state import StateLayer


def run_by_states(modules: Sequence[nn.Module]) -> Adapt:
    """Lets modules that are given a StateLayer compute through its run, and with any other cache as ever."""

    def give_forms(model: nn.Module, adaptation: Adaptation) -> None:
        for module in modules:
            if not adaptation.keep(module):
                adaptation.give(module, _RunByStates)

    return give_forms


class _RunByStates(Form):
    """The form of a module that reads and writes a state."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        layer = next((value for value in (*arguments, *options.values()) if isinstance(value, StateLayer)), None)
        return call(*arguments, **options) if layer is None else layer.run(call, arguments, options)

"""Modules that compute attention themselves, which take packed tokens sequence by sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.nn as nn

from mlx_agent_llm.core.forward.fast.adaptation import Adapt, Adaptation, Form
from mlx_agent_llm.core.forward.layers.gathered import gathered_layers, run_by_sequences


def run_modules_by_sequences(modules: Sequence[nn.Module]) -> Adapt:
    """Lets modules that are given a GatheredLayer compute sequence by sequence, and with any other cache as ever."""

    def give_forms(model: nn.Module, adaptation: Adaptation) -> None:
        for module in modules:
            if not adaptation.keep(module):
                adaptation.give(module, _RunBySequences)

    return give_forms


class _RunBySequences(Form):
    """The form of a module that computes attention itself."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        if gathered_layers([*arguments, *options.values()]):
            return run_by_sequences(call, arguments, options)
        return call(*arguments, **options)

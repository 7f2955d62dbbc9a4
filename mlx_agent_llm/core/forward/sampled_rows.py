"""Only sampled rows reach the LM head: a 2,048-token chunk must not compute 2,048 rows of logits.

A model of mlx-lm hands its cache to an inner module and puts the head on top of what that returns. Whatever the inner
one is called and takes, it drops the other rows; where none can, the model drops them of its logits. With any cache but
ours both do what they always did.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, SupportsIndex

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.core.forward.fast.adaptation import Adaptation, Form
from mlx_agent_llm.core.forward.layers.layer import batch_of
from mlx_agent_llm.errors import UnsupportedModelError


def keep_only_sampled_rows(model: nn.Module, adaptation: Adaptation) -> None:
    """Let a model return logits of sampled rows alone, (S, 1, vocab), and compute no others if its head can be found.

    Raises UnsupportedModelError for a model whose logits are not (T, 1, vocab).
    """
    modules = _modules_with_the_cache(model)
    if adaptation.keep(next((module for module in modules if isinstance(module, _SampledRows)), model)):
        return
    for module in modules:
        adaptation.give(module, _SampledRows)
        if module is model or _drops_rows(model):
            return
        adaptation.take_back(module)


def computes_all_logits(model: nn.Module) -> bool:
    """Whether a model in this form computes the logits of every row, because its head could not be found."""
    return isinstance(model, _SampledRows)


class _SampledRows(Form):
    """The form of a module whose rows are those of the logits."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().__call__(*args, **kwargs)  # type: ignore[misc]
        rows = _sampled_rows([*args, *kwargs.values()])
        if rows is None:
            return output
        return output[rows] if rows.size else output[:1]  # MLX's CUDA product of packed weights wants a row


def _sampled_rows(arguments: list[Any]) -> mx.array | None:
    """The rows that a forward over our layers samples, by the cache among a call's arguments; None for other caches."""
    for argument in arguments:
        if isinstance(argument, _WatchedCache):
            return argument.sampled_rows
        if isinstance(argument, list | tuple) and (batch := batch_of(argument)) is not None:
            return batch.tokens.sampled_rows
    return None


class _WatchedCache(list[Any]):
    """A model's cache, made by mlx-lm, that notes which modules are given the whole of it."""

    def __init__(self, model: nn.Module, sampled_rows: mx.array | None) -> None:
        super().__init__(make_prompt_cache(model))
        self._model = model
        self.sampled_rows = sampled_rows
        self.modules: list[nn.Module] = []  # the innermost first

    def __iter__(self) -> Iterator[Any]:
        self._note_callers(sys._getframe(1))
        return super().__iter__()

    def __add__(self, others: list[Any]) -> list[Any]:
        self._note_callers(sys._getframe(1))
        return super().__add__(others)

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        self._note_callers(sys._getframe(1))
        return super().__getitem__(index)

    def _note_callers(self, frame: Any) -> None:
        """Note the modules that are being called with this cache; a model reads it in one of them alone.

        Frames above the model's are left alone: what Python reads of a frame's variables lives as long as the frame.
        """
        found, module = list[nn.Module](), None
        while module is not self._model:
            if frame.f_code.co_name == "__call__":
                module = frame.f_locals.get("self")
                is_given = isinstance(module, nn.Module) and any(value is self for value in frame.f_locals.values())
                if is_given and all(module is not known for known in found):
                    found.append(module)
            frame = frame.f_back
        if len(found) > len(self.modules):
            self.modules = found


def _modules_with_the_cache(model: nn.Module) -> list[nn.Module]:
    """The modules that are called with a model's whole cache, the innermost first, the model itself last."""
    cache = _WatchedCache(model, sampled_rows=None)
    logits: Any = model(mx.zeros((1, 1), dtype=mx.int32), cache=cache)
    if not isinstance(logits, mx.array) or logits.shape[:-1] != (1, 1):
        what = logits.shape if isinstance(logits, mx.array) else type(logits).__name__
        raise UnsupportedModelError(f"{type(model).__module__}: logits of one token are {what}, not (1, 1, vocab)")
    return [*(module for module in cache.modules if module is not model), model]


def _drops_rows(model: Any) -> bool:
    """Whether two rows of three are what comes out of the model, after a module of it has dropped the third."""
    cache = _WatchedCache(model, sampled_rows=mx.array([0, 2]))
    try:
        logits: mx.array = model(mx.zeros((3, 1), dtype=mx.int32), cache=cache)
    except Exception:  # what the model does with the rows afterwards wants them all
        return False
    return logits.shape[:-1] == (2, 1)

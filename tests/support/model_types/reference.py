"""What mlx-lm itself says after a prompt, greedily and with its own cache, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import make_prompt_cache

NO_TOKENS: Mapping[int, int] = {}


class Step(NamedTuple):
    """One output token of mlx-lm's and the log-probabilities, (vocab,), that it was chosen by."""

    token_id: int
    logprobs: npt.NDArray[np.float32]


class Reference:
    """One model's greedy continuations, each computed once. The prompt is one chunk, as mlx-lm computes it."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._known: dict[tuple[tuple[int, ...], int, tuple[tuple[int, int], ...]], list[Step]] = {}

    def continuation(self, prompt: Sequence[int], num_tokens: int, forced: Mapping[int, int] = NO_TOKENS) -> list[Step]:
        """The next num_tokens tokens; forced: output index -> the token that stands there whatever the model says."""
        key = tuple(prompt), num_tokens, tuple(forced.items())
        if key not in self._known:
            self._known[key] = self._compute(prompt, num_tokens, forced)
        return self._known[key]

    def _compute(self, prompt: Sequence[int], num_tokens: int, forced: Mapping[int, int]) -> list[Step]:
        cache = make_prompt_cache(self._model)
        pending, steps = list(prompt), list[Step]()
        for index in range(num_tokens):
            logits = self._model(mx.array([pending]), cache=cache)[0, -1].astype(mx.float32)
            logprobs = np.array(logits - mx.logsumexp(logits))
            steps.append(Step(forced.get(index, int(logprobs.argmax())), logprobs))
            pending = [steps[-1].token_id]
        return steps

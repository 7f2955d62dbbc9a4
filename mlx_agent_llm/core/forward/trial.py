"""The trial at load: a model of mlx-lm has to say over paged layers what it says with a cache of mlx-lm's own.

A model may compute attention where no layer of ours sees it, or in an order of its own; then it would be served without
an error and answer wrongly. Some random tokens are computed both ways, here as a chunk and as decode steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.forward.fast.adaptation import Adaptation, Form, adapt
from mlx_agent_llm.core.forward.layers.layer import batch_of
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.request import Request, SamplingParams

NUM_TOKENS = 24
NUM_DECODED = 2  # of them are computed one by one
# Rounded to 16 bits, a token that two experts suit alike may go to the other one: what differs for all tokens that are
# tried differs for another reason.
NUM_ATTEMPTS = 3
# Of the logits' norm. Attention that is computed otherwise makes a difference of a quarter and more; bfloat16 makes one
# of 0.02 in a language model of 30 layers, and of up to 0.09 in those of random weights.
_TOLERANCE_IN_16_BITS = 0.2
_TOLERANCE_ON_A_GPU = 0.02  # whose products of float32 may keep 10 bits
_TOLERANCE = 1e-3


class Trial(NamedTuple):
    """How a model is run: all that an engine computes with, while it serves nobody. max_tokens: that it may compute."""

    model: nn.Module
    runner: ModelRunner
    scheduler: Scheduler
    vocab_size: int
    block_size: int
    max_tokens: int

    def run(self) -> None:
        """Raise an UnsupportedModelError for a model whose logits differ from mlx-lm's, with the first layer that does.

        What is no model of mlx-lm has nothing to be compared with.
        """
        if not type(self.model).__module__.startswith("mlx_lm.") or self.max_tokens < 2:
            return
        errors = list[float]()
        for seed in range(NUM_ATTEMPTS):
            errors.append(self.distance(self.random_tokens(seed)))
            if errors[-1] <= self.tolerance:
                return
        first = self._first_difference(self.random_tokens(seed), self.tolerance)
        raise UnsupportedModelError(
            f"{type(self.model).__module__}: over paged layers its logits differ from mlx-lm's by {min(errors):.2g} of "
            f"their norm, and {self.tolerance:g} are rounding; first in {first}"
        )

    def distance(self, token_ids: Sequence[int]) -> float:
        """How far the logits of a sequence's last tokens are from mlx-lm's, as a part of their norm."""
        with self.runner.on_device():
            expected = _expected_logits(self.model, token_ids)
        found = self._logits(token_ids, BatchMaker(self.block_size, self.runner.packing))
        with self.runner.on_device():
            return max(_distance(*pair) for pair in zip(found, expected, strict=True))

    @property
    def tolerance(self) -> float:
        """The distance that rounding may make in the types of the model's weights."""
        with self.runner.on_device():
            return _tolerance(self.model)

    def random_tokens(self, seed: int) -> list[int]:
        """A sequence that is tried."""
        count = min(NUM_TOKENS, self.max_tokens)
        token_ids: list[int] = np.random.default_rng(seed).integers(0, self.vocab_size, count).tolist()
        return token_ids

    def _logits(
        self, token_ids: Sequence[int], batch_maker: BatchMaker, cache_salt: str | None = None
    ) -> list[mx.array]:
        """The logits, (vocab,) each, after the tokens but the last ones, and after each of these."""
        num_prompt = max(len(token_ids) - NUM_DECODED, 1)
        params = SamplingParams(max_tokens=len(token_ids), cache_salt=cache_salt)
        request = Request(-1, token_ids[:num_prompt], params, 0, lambda delta: None)
        left, logits = list(token_ids[num_prompt:]), list[mx.array]()
        self.scheduler.add(request)
        try:
            while len(logits) < 1 + len(token_ids) - num_prompt:
                schedule = self.scheduler.schedule()
                assert schedule is not None, "an engine that serves nobody has room for its trial"
                with self.runner.on_device():
                    batch = batch_maker.make(schedule, ())
                rows = self.runner.forward(batch, None)
                mx.eval(rows)
                if batch.sampled:
                    with self.runner.on_device():
                        logits.append(rows[0])
                    request.token_ids += left[:1]
                    del left[:1]
        finally:
            self.scheduler.finish(request)
        return logits

    def _first_difference(self, token_ids: Sequence[int], tolerance: float) -> str:
        """The first of the model's layers whose output is another one, by index and class."""
        outputs: list[list[mx.array]] = [[] for _ in self.model.layers]
        adaptation = adapt(self.model, partial(_record_layers, outputs=outputs))
        try:
            with self.runner.on_device():
                _expected_logits(self.model, token_ids)
                expected = [_rows(recorded) for recorded in outputs]
            for recorded in outputs:
                recorded.clear()
            # A forward that is traced has no values to record, and nor have tokens whose KV is found.
            packing = self.runner.packing._replace(in_buckets=False)
            self._logits(token_ids, BatchMaker(self.block_size, packing), cache_salt="again")
            with self.runner.on_device():
                for index, (layer, recorded, own) in enumerate(zip(self.model.layers, outputs, expected, strict=True)):
                    if _differs(_rows(recorded), own, tolerance):
                        return f"layer {index} ({type(layer).own_class.__name__})"
        finally:
            adaptation.undo()
        return "what follows its layers"


def _expected_logits(model: Any, token_ids: Sequence[int]) -> list[mx.array]:
    logits: mx.array = model(mx.array([token_ids]), cache=make_prompt_cache(model))[0]
    mx.eval(logits)
    return [logits[index] for index in range(max(len(token_ids) - NUM_DECODED, 1) - 1, len(token_ids))]


def _distance(found: mx.array, expected: mx.array) -> float:
    """How far found is from expected, as a part of its norm; infinite where either is not finite."""
    found, expected = found.astype(mx.float32), expected.astype(mx.float32)
    norms = mx.stack([mx.linalg.norm(found - expected), mx.linalg.norm(expected)])
    distance, whole = np.array(norms)
    return float(distance / whole) if np.isfinite([distance, whole]).all() and whole > 0 else np.inf


def _tolerance(model: nn.Module) -> float:
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    if any(array.dtype in (mx.float16, mx.bfloat16) for array in arrays.values()):
        return _TOLERANCE_IN_16_BITS
    return _TOLERANCE if mx.default_device().type == mx.cpu else _TOLERANCE_ON_A_GPU


class _Recorded(Form):
    """The form of a layer that keeps what it returns."""

    recorded: list[mx.array]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().__call__(*args, **kwargs)  # type: ignore[misc]
        states = output[0] if isinstance(output, tuple) else output
        batches = [batch for value in [*args, *kwargs.values()] if (batch := batch_of(value)) is not None]
        num_padding = batches[0].num_padding if batches else 0  # which is last, and of our forwards alone
        type(self).recorded.append(states[: states.shape[0] - num_padding])
        return output


def _record_layers(model: nn.Module, adaptation: Adaptation, outputs: list[list[mx.array]]) -> None:
    for layer, recorded in zip(model.layers, outputs, strict=True):
        adaptation.give(layer, _Recorded, recorded=recorded)


def _rows(recorded: Sequence[mx.array]) -> mx.array:
    """(tokens, width) of all calls of a layer, in the order of the tokens."""
    return mx.concatenate([states.reshape(-1, states.shape[-1]) for states in recorded])


def _differs(found: mx.array, expected: mx.array, tolerance: float) -> bool:
    return found.shape != expected.shape or _distance(found, expected) > tolerance

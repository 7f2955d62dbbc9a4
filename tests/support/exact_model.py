"""A model whose logits are exact, so that tokens can be compared, and the faults that strike while it runs."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models.base

from mlx_agent_llm.constrain.backends.matcher import GrammarMatcher
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.output import samples
from mlx_agent_llm.core.output.detokenizer import Detokenizer
from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.testing import ByteTokenizer

NUM_FEATURES = 1021
EOS_TOKEN_ID = 257


class Fault(Exception):
    """What the tests themselves raise."""


class Faults:
    """Strikes now and then at the places that have a rate; asked by the engine's thread alone."""

    def __init__(self, seed: int, **rates: float) -> None:
        self.rates = rates
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)

    def strike(self, place: str) -> bool:
        """Whether there is a fault here and now."""
        is_struck = self._rng.random() < self.rates.get(place, 0.0)
        self.counts[place] += is_struck
        return is_struck

    def spoil(self, place: str, array: mx.array) -> mx.array:
        """Raise one of three errors, or return an array that raises when it is evaluated, maybe a step later."""
        if not self.strike(place):
            return array
        kind = self._rng.choice([_break, _allocate_too_much, _exceed_a_shape, _fail_late])
        self.counts[f"{place}: {kind.__name__}"] += 1
        return array + kind().astype(array.dtype)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the sampler, the matchers and the detokenizer break too, at their rates."""
        sample, accept, fill_mask, add = (
            samples.sample,
            GrammarMatcher.accept,
            GrammarMatcher.fill_mask,
            Detokenizer.add,
        )

        def broken_sample(*arguments: Any) -> mx.array:
            return self.spoil("sample", sample(*arguments))

        def broken_accept(matcher: GrammarMatcher, token_id: int) -> bool:
            return not self.strike("reject") and self._pass("accept", accept, matcher, token_id)

        def broken_fill_mask(*arguments: Any) -> None:
            self._pass("fill_mask", fill_mask, *arguments)

        def broken_add(*arguments: Any) -> str:
            return self._pass("detokenize", add, *arguments)

        with (
            patch.object(samples, "sample", broken_sample),
            patch.object(GrammarMatcher, "accept", broken_accept),
            patch.object(GrammarMatcher, "fill_mask", broken_fill_mask),
            patch.object(Detokenizer, "add", broken_add),
        ):
            yield

    def _pass(self, place: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.strike(place):
            raise Fault(place)
        return function(*arguments)


def is_ours(error: GenerationError) -> bool:
    """Whether a fault of this module is what a request failed with."""
    texts = ("[malloc]", "LU factorization failed", "outside the supported range")
    return (
        isinstance(error.__cause__, Fault)
        or "the grammar rejected sampled token" in str(error)
        or any(text in str(error) for text in texts)
    )


def _break() -> mx.array:
    raise Fault("the forward broke")


def _allocate_too_much() -> mx.array:
    # On the CPU MLX does not check what malloc returns and crashes: this is the GPU's error, put where it is raised.
    if mx.default_device() == mx.Device(mx.cpu):
        raise RuntimeError("[malloc] Unable to allocate 9007199250546688 bytes.")
    return mx.zeros((2**31 - 1, 2**20)).sum()


def _exceed_a_shape() -> mx.array:
    return mx.zeros((2**40,)).sum()


def _fail_late() -> mx.array:
    return mx.linalg.inv(mx.zeros((3, 3)), stream=mx.cpu).sum() * 0


class _Args(NamedTuple):
    max_position_embeddings: int = 1024


class ExactModel(nn.Module):
    """The next token depends on every token before it and its position, all read back through the paged pools.

    Sums of small integers are exact in float32 whatever the order, so the logits depend on no neighbour and no chunk.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__()
        self.args, self.tokenizer = _Args(), ByteTokenizer()
        self.model = _SumOfTokens()
        self._faults = faults or Faults(0)
        self._table = 2.0 * mx.random.normal((NUM_FEATURES, ByteTokenizer.vocab_size), key=mx.random.key(5))
        self._table[:, EOS_TOKEN_ID] += 4.0
        mx.eval(self._table)

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """(T, 1) token ids -> (S, 1, V) logits."""
        features: mx.array = self.model(inputs, cache)
        logits = self._table[features]
        return self._faults.spoil("forward", logits) if isinstance(cache[0], PagedLayer) else logits


class _SumLayer(nn.Module):
    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        """(T, 1) tokens -> (T, 1) sums over all tokens up to each: equal scores make attention the mean."""
        positions = mx.array(cache.offset).reshape(-1, 1)
        values = ((inputs * 31 + positions * 17 + inputs * positions) % 97).astype(mx.float32)[:, :, None, None]
        keys, values = cache.update_and_fetch(mx.zeros_like(values), values)
        attend: Callable[..., mx.array] = mlx_lm.models.base.scaled_dot_product_attention
        mean = attend(mx.zeros_like(keys), keys, values, cache, scale=1.0, mask=None)
        return mx.round(mean[:, :, 0, 0] * (positions + 1)).astype(mx.int32)


class _SumOfTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers: list[nn.Module] = [_SumLayer()]

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        return (self.layers[0](inputs, cache[0]) * 7 + inputs * 5) % NUM_FEATURES

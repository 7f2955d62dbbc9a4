import gc
import weakref
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.base import create_attention_mask

from mlx_agent_llm.core.forward.fast.adaptation import adapt
from mlx_agent_llm.core.forward.sampled_rows import keep_only_sampled_rows
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core, run


def test_only_sampled_rows_reach_the_lm_head() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.num_rows: list[int] = []
            inner = tiny_model()
            self.args, self.model = inner.args, inner.model

        @property
        def layers(self) -> Any:
            return self.model.layers

        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            hidden = self.model(inputs, cache)
            self.num_rows.append(hidden.shape[0])
            logits: mx.array = self.model.embed_tokens.as_linear(hidden)
            return logits

    model = Counting()
    core = make_core(model)
    model.num_rows.clear()
    run(core, list(range(150)), list(range(30)))
    # Chunks of 64, 64 and 22 tokens with the second prompt after: one row, for nobody, before the first prompt ends.
    assert model.num_rows[:2] == [1, 1]
    assert set(model.num_rows[2:]) <= {1, 2}
    assert sum(model.num_rows) == 22


class Outer(nn.Module):
    """A llama whose inner model is called as `call` says, and whose rows `finish` still changes after that."""

    def __init__(self, call: Callable[..., Any], finish: Callable[[mx.array], Any] = lambda logits: logits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        inner: Any = tiny_model()
        self.trunk = Inner(inner.model)
        self._call, self._finish = call, finish
        self.num_rows: list[int] = []

    @property
    def layers(self) -> Any:
        return self.trunk.model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> Any:
        hidden: mx.array = self._call(self.trunk, inputs, cache)
        self.num_rows.append(hidden.shape[0])
        return self._finish(self.trunk.model.embed_tokens.as_linear(hidden))


class Inner(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model: Any = model

    def __call__(self, mask: Any, cache: Any, tokens: mx.array) -> mx.array:
        assert mask is None
        output: mx.array = self.model.norm(tokens_through(self.model, tokens, cache))
        return output


def tokens_through(model: Any, tokens: mx.array, cache: Any) -> mx.array:
    hidden: mx.array = model.embed_tokens(tokens)
    mask = create_attention_mask(hidden, cache[0])
    for layer, own in zip(model.layers, cache, strict=True):
        hidden = layer(hidden, mask, own)
    return hidden


PROMPTS = [list(range(150)), list(range(30))]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return run(make_core(tiny_model()), *PROMPTS)


@pytest.mark.parametrize(
    "call",
    [
        lambda trunk, inputs, cache: trunk(None, cache, inputs),
        lambda trunk, inputs, cache: trunk(tokens=inputs, mask=None, cache=cache),
        lambda trunk, inputs, cache: trunk(None, cache=cache, tokens=inputs),
    ],
)
def test_the_head_is_found_whatever_the_inner_model_is_called_with(
    call: Callable[..., Any], expected: list[list[int]]
) -> None:
    model = Outer(call)
    core = make_core(model)
    model.num_rows.clear()
    assert run(core, *PROMPTS) == expected
    assert max(model.num_rows) == 2, "rows that nobody samples reached the head"
    assert not core.stats().computes_all_logits


@pytest.mark.parametrize("wants_all", [True, False])
def test_logits_are_cut_where_no_inner_module_can_drop_rows(expected: list[list[int]], wants_all: bool) -> None:
    """One way: the head is part of the inner model. The other: what follows it takes rows of the inputs again."""
    model: Any = Outer(lambda trunk, inputs, cache: trunk(None, cache, inputs) + 0 * inputs[..., None])
    if not wants_all:
        model = Outer(lambda trunk, inputs, cache: trunk.model.norm(tokens_through(trunk.model, inputs, cache)))
    core = make_core(model)
    model.num_rows.clear()
    assert run(core, *PROMPTS) == expected
    assert max(model.num_rows) == 64
    assert core.stats().computes_all_logits


@pytest.mark.parametrize(
    ("finish", "message"),
    [(lambda logits: (logits, None), "tuple"), (lambda logits: logits[:, -1], r"\(1, 258\)")],
)
def test_logits_of_another_form_are_refused(finish: Callable[[mx.array], Any], message: str) -> None:
    model = Outer(lambda trunk, inputs, cache: trunk(None, cache, inputs), finish)
    with pytest.raises(UnsupportedModelError, match=rf"logits of one token are {message}, not \(1, 1, vocab\)"):
        adapt(model, keep_only_sampled_rows)


def test_a_module_that_cannot_drop_rows_has_its_own_class_again() -> None:
    model = Outer(lambda trunk, inputs, cache: trunk(None, cache, inputs) + 0 * inputs[..., None])
    adaptation = adapt(model, keep_only_sampled_rows)
    assert type(model.trunk) is Inner and type(model) is not Outer
    assert adapt(model, keep_only_sampled_rows).undo() is None and type(model) is not Outer
    adaptation.undo()
    assert type(model) is Outer


def test_what_finds_the_head_keeps_no_model_alive() -> None:
    model = tiny_model()
    adapt(model, keep_only_sampled_rows).undo()
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

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


def test_a_model_without_an_inner_one_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no inner `model`"):
        adapt(nn.Linear(2, 2), keep_only_sampled_rows)

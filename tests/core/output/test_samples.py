"""What is read beside the tokens: whether the logits that they were sampled from were numbers."""

import math

import mlx.core as mx
import pytest

from mlx_agent_llm.core.output.sampler import Sampler
from mlx_agent_llm.core.output.samples import dispatch_samples
from mlx_agent_llm.request import Request, SamplingParams

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("logits", "is_finite"),
    [
        ([1.0, 2.0, 3.0], True),
        ([-INF, -INF, 3.0], True),
        ([1.0, NAN, 3.0], False),
        ([NAN, -INF, -INF], False),
        ([NAN, NAN, NAN], False),
        ([1.0, 2.0, INF], False),
        ([INF, NAN, 1.0], False),
        ([-INF, -INF, -INF], False),
    ],
)
def test_a_row_is_finite_without_nan_and_infinity_and_with_one_token_to_sample(
    logits: list[float], is_finite: bool, temperature: float, dtype: mx.Dtype
) -> None:
    requests = tuple(Request(i, [1], SamplingParams(temperature=temperature), 3, lambda delta: None) for i in range(3))
    rows = Sampler(lambda request: (), 3).rows(requests, (0,) * 3)
    padding = [0.0, 1.0, 2.0]
    samples = dispatch_samples(mx.array([padding, logits, padding], dtype=dtype), None, rows)
    token_ids, flags = samples.read()
    assert flags == [True, is_finite, True] and len(token_ids) == 3

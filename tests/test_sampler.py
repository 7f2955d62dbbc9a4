"""The sampler against a plain specification of which tokens may be drawn, and how often."""

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.sampler import SamplingRows, _keep_likely, sample, sampling_rows
from mlx_agent_llm.request import Request, SamplingParams

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    position: int = 0


def as_rows(rows: list[Row]) -> SamplingRows:
    return SamplingRows(
        temperature=np.array([row.temperature for row in rows], dtype=np.float32),
        top_k=np.array([row.top_k for row in rows], dtype=np.int32),
        top_p=np.array([row.top_p for row in rows], dtype=np.float32),
        min_p=np.array([row.min_p for row in rows], dtype=np.float32),
        seed=np.array([row.seed for row in rows], dtype=np.uint32),
        position=np.array([row.position for row in rows], dtype=np.uint32),
    )


def draw(logits: FloatArray, rows: list[Row], bitmask: npt.NDArray[np.int32] | None = None) -> list[int]:
    return np.array(sample(mx.array(logits), bitmask, as_rows(rows))).tolist()  # type: ignore[no-any-return]


def draw_many(logits: FloatArray, row: Row, count: int) -> npt.NDArray[np.int64]:
    """`count` draws of one row at as many positions."""
    rows = [Row(row.temperature, row.top_k, row.top_p, row.min_p, row.seed, position) for position in range(count)]
    return np.array(draw(np.tile(logits, (count, 1)), rows))


def specified(logits: FloatArray, row: Row) -> npt.NDArray[np.float64]:
    """The distribution that a row is drawn from, step by step as SamplingParams says it."""
    scaled = logits.astype(np.float64) / row.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    if row.top_k:
        probabilities[order[row.top_k :]] = 0
        probabilities /= probabilities.sum()
    mass = 0.0
    for token in order:
        if mass >= row.top_p:
            probabilities[token] = 0
        mass += probabilities[token]
    probabilities[probabilities < row.min_p * probabilities.max()] = 0
    normalized: npt.NDArray[np.float64] = probabilities / probabilities.sum()
    return normalized


def spread_logits(seed: int, size: int = 24) -> FloatArray:
    """Distinct logits: equal ones may stay together where a bound falls between them."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(size) * 0.31 + rng.random(size) * 0.1).astype(np.float32)


SETTINGS = [
    Row(),
    Row(temperature=0.5),
    Row(temperature=3.0),
    Row(top_k=1),
    Row(top_k=5),
    Row(top_k=1000),
    Row(top_p=0.5),
    Row(top_p=0.9, temperature=2.0),
    Row(top_p=1e-9),
    Row(min_p=0.1),
    Row(min_p=1.0),
    Row(top_k=7, top_p=0.8, min_p=0.2, temperature=1.7),
]


@pytest.mark.parametrize("row", SETTINGS, ids=str)
def test_draws_come_from_the_specified_tokens_in_the_specified_frequencies(row: Row) -> None:
    count, logits = 3000, spread_logits(1)
    expected = specified(logits, row) * count
    seen = np.bincount(draw_many(logits, row, count), minlength=len(logits))
    assert not seen[expected == 0].any(), "a token was drawn that is cut off"
    usual = expected >= 5
    chi_square = float(((seen - expected)[usual] ** 2 / expected[usual]).sum())
    degrees = max(int(usual.sum()) - 1, 0)
    assert chi_square <= degrees + 5 * math.sqrt(2 * degrees) + 1e-6, "frequencies are off"


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 100),
    st.lists(
        st.builds(
            Row,
            temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
            top_k=st.integers(0, 30),
            top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.95, 1.0]),
            min_p=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
            seed=st.integers(0, 2**32 - 1),
            position=st.integers(0, 2**20),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_a_row_draws_the_same_token_alone_and_beside_any_others(logits_seed: int, rows: list[Row]) -> None:
    logits = np.stack([spread_logits(logits_seed + index) for index in range(len(rows))])
    together = draw(logits, rows)
    assert together == [draw(logits[index : index + 1], [row])[0] for index, row in enumerate(rows)]
    for index, row in enumerate(rows):
        if row.temperature == 0:
            assert together[index] == logits[index].argmax()
        else:
            assert specified(logits[index], row)[together[index]] > 0


def test_a_neighbour_with_top_p_cuts_nothing_off_a_row_without() -> None:
    """In float32 the running sum of a large vocabulary's probabilities passes 1 long before its end."""
    logits = mx.array(np.random.default_rng(0).normal(size=(2, 50_000)).astype(np.float32) * 3)
    kept = _keep_likely(logits, as_rows([Row(), Row(top_p=0.5)]))
    assert bool((kept[0] == logits[0]).all())
    assert bool((kept[1] == -math.inf).any())


def test_greedy_takes_the_most_probable_token_and_the_first_of_equal_ones() -> None:
    logits = np.array([[0, 3, 1, 3], [5, 1, 1, 1]], dtype=np.float32)
    assert draw(logits, [Row(temperature=0), Row(temperature=0)]) == [1, 0]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-38])
def test_a_temperature_near_zero_is_greedy_also_where_logits_overflow(temperature: float) -> None:
    logits = np.array([[-7, -3, -4, -9], [7, 30, 4, 9]], dtype=np.float32)
    assert draw(logits, [Row(temperature=temperature), Row(temperature=temperature)]) == [1, 1]


def mask_of(allowed: list[set[int]], size: int) -> npt.NDArray[np.int32]:
    bits = np.zeros((len(allowed), -(-size // 32) * 32), dtype=np.uint8)
    for row, tokens in enumerate(allowed):
        bits[row, list(tokens)] = 1
    return np.packbits(bits, axis=1, bitorder="little").view(np.int32)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_forbidden_token_is_never_drawn_and_what_is_allowed_is_drawn_as_if_it_were_all(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([5, 32, 33, 70]))
    tokens = st.sets(st.integers(0, size - 1), min_size=1, max_size=size)
    allowed = data.draw(st.lists(tokens, min_size=1, max_size=4))
    rows = [
        Row(
            temperature=data.draw(st.sampled_from([0.0, 1e-30, 0.7, 50.0])),
            top_k=data.draw(st.integers(0, 3)),
            top_p=data.draw(st.sampled_from([0.3, 1.0])),
            min_p=data.draw(st.sampled_from([0.0, 0.3])),
            position=data.draw(st.integers(0, 1000)),
        )
        for _ in allowed
    ]
    logits = np.stack([spread_logits(index, size) for index in range(len(allowed))]) * 10 - 100
    drawn = draw(logits, rows, mask_of(allowed, size))
    for index, (token, row) in enumerate(zip(drawn, rows, strict=True)):
        assert token in allowed[index]
        if row.temperature == 0:
            assert token == max(allowed[index], key=lambda candidate: logits[index, candidate])


@pytest.mark.parametrize("token", [0, 31, 32, 63, 64, 69])
def test_the_only_allowed_token_is_drawn_however_improbable_it_is(token: int) -> None:
    logits = np.full((4, 70), 50, dtype=np.float32)
    logits[:, token] = -1e30
    rows = [Row(temperature=0), Row(), Row(top_k=3, top_p=0.1, min_p=0.9), Row(temperature=1e-3)]
    assert draw(logits, rows, mask_of([{token}] * 4, 70)) == [token] * 4


def test_draws_at_different_positions_and_of_different_seeds_are_independent() -> None:
    logits = np.zeros(64, dtype=np.float32)
    by_position = draw_many(logits, Row(seed=1), 2000)
    by_seed = np.array(draw(np.tile(logits, (2000, 1)), [Row(seed=seed, position=7) for seed in range(2000)]))
    for draws in (by_position, by_seed):
        assert np.bincount(draws, minlength=64).max() < 2000 / 64 + 6 * math.sqrt(2000 / 64)
        assert (draws[1:] == draws[:-1]).mean() < 0.035


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_logits_of_half_precision_are_sampled_in_float32(dtype: mx.Dtype) -> None:
    logits = mx.array(spread_logits(3)[None]).astype(dtype)
    row = as_rows([Row(top_p=0.9, seed=5)])
    assert sample(logits, None, row).tolist() == sample(logits.astype(mx.float32), None, row).tolist()


def test_a_rows_parameters_are_those_of_its_request_and_its_position_the_token_to_come() -> None:
    params = SamplingParams(temperature=0.5, top_k=3, top_p=0.25, min_p=0.125)
    rows = sampling_rows([Request(0, [1, 2, 3], params, 2**32 - 1, lambda delta: None)])
    assert [field.tolist() for field in rows] == [[0.5], [3], [0.25], [0.125], [2**32 - 1], [3]]

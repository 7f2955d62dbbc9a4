"""The sampler against a plain specification of which tokens may be drawn, and how often."""

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.output.penalties import change_logits
from mlx_agent_llm.core.output.sampler import Sampler, SamplingRows, _keep_likely, sample
from mlx_agent_llm.request import Delta, Draft, Request, SamplingParams
from tests.support.search import examples

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


@settings(max_examples=examples(80))
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


@settings(max_examples=examples(100))
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
    rows = Sampler(no_end, SIZE).rows((Request(0, [1, 2, 3], params, 2**32 - 1, ignore),), (0,))
    assert [field.tolist() for field in rows[:6]] == [[0.5], [3], [0.25], [0.125], [2**32 - 1], [3]]
    assert rows[6:] == (None, None, None, None, False), "what nobody asks for must cost nothing"


# --- penalties, biases, min_tokens -----------------------------------------------------------------------------------

SIZE = 12
END = 11


def no_end(request: Request) -> frozenset[int]:
    return frozenset()


def ignore(delta: Delta) -> None:
    pass


def make_request(request_id: int, params: SamplingParams, prompt: list[int], output: list[int]) -> Request:
    request = Request(request_id, prompt, params, request_id, ignore)
    request.token_ids += output
    return request


def changed_by_hand(logits: FloatArray, request: Request) -> FloatArray:
    """The logits of one request as SamplingParams says it, token by token."""
    params, changed = request.params, logits.copy()
    output = request.token_ids[request.num_prompt_tokens :]
    for token in range(len(logits)):
        if token in request.token_ids:
            factor = np.float32(params.repetition_penalty)
            changed[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
        offset = params.logit_bias.get(token, 0.0) - params.frequency_penalty * output.count(token)
        changed[token] += np.float32(offset - params.presence_penalty * (token in output))
        if token == END and len(output) < params.min_tokens:
            changed[token] = -math.inf
    return changed


def logits_seen(monkeypatch: pytest.MonkeyPatch, logits: FloatArray, rows: SamplingRows) -> FloatArray:
    """The logits that the most probable token of each row is taken from."""
    seen: list[FloatArray] = []
    argmax = mx.argmax

    def seeing_argmax(array: mx.array, axis: int) -> mx.array:
        seen.append(np.array(array))
        return argmax(array, axis=axis)

    with monkeypatch.context() as patch:
        patch.setattr(mx, "argmax", seeing_argmax)
        sample(mx.array(logits), None, rows)
    return seen[0]


TOKENS = st.lists(st.integers(0, SIZE - 1), max_size=10)
REQUEST = st.tuples(
    st.builds(
        SamplingParams,
        max_tokens=st.just(20),
        min_tokens=st.sampled_from([0, 0, 1, 4, 20]),
        repetition_penalty=st.sampled_from([1.0, 1.0, 0.5, 1.3]),
        presence_penalty=st.sampled_from([0.0, 0.0, -2.0, 0.7]),
        frequency_penalty=st.sampled_from([0.0, 0.0, -0.3, 1.1]),
        logit_bias=st.dictionaries(st.integers(0, SIZE - 1), st.sampled_from([-100.0, 0.0, 1.7]), max_size=3),
    ),
    TOKENS.filter(bool),
    st.lists(TOKENS, min_size=1, max_size=4),  # the output, as it grows from step to step
)


@settings(max_examples=examples(150))
@given(st.lists(REQUEST, min_size=1, max_size=6), st.integers(0, 100))
def test_each_rows_logits_are_changed_as_its_parameters_say_and_no_other_bit(
    described: list[tuple[SamplingParams, list[int], list[list[int]]]], seed: int
) -> None:
    requests = [make_request(number, params, prompt, []) for number, (params, prompt, _) in enumerate(described)]
    sampler = Sampler(lambda request: frozenset([END]), SIZE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for step in range(4):
            for request, (_, _, growth) in zip(requests, described, strict=True):
                request.token_ids += growth[step] if step < len(growth) else []
            batch = requests if step % 2 else requests[::-1]
            logits = np.random.default_rng(seed + step).normal(size=(len(batch), SIZE)).astype(np.float32)
            expected = [changed_by_hand(row, request) for row, request in zip(logits, batch, strict=True)]
            seen = logits_seen(monkeypatch, logits, sampler.rows(tuple(batch), (0,) * len(batch)))
            np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-6)
            for row, request in enumerate(batch):
                alone = Sampler(lambda request: frozenset([END]), SIZE).rows((request,), (0,))
                assert seen[row].tobytes() == logits_seen(monkeypatch, logits[row : row + 1], alone)[0].tobytes()
            for row, request in enumerate(batch):
                touched = {*request.params.logit_bias, *request.token_ids, END}
                others = [token for token in range(SIZE) if token not in touched]
                assert seen[row][others].tobytes() == logits[row][others].tobytes()


def test_sampling_leaves_the_models_logits_as_they_are() -> None:
    params = SamplingParams(logit_bias={1: 5.0}, repetition_penalty=2.0, min_tokens=3)
    logits = mx.array(spread_logits(0, SIZE)[None])
    before = np.array(logits)
    request = make_request(0, params, [2], [3])
    rows = Sampler(lambda request: frozenset([END]), SIZE).rows((request,), (0,))
    mx.eval(sample(logits, None, rows))
    assert np.array(logits).tobytes() == before.tobytes()
    mx.eval(sample(logits, None, rows._replace(prompt_changes=None, output_changes=None)))
    assert np.array(logits).tobytes() == before.tobytes()
    assert rows.output_changes is not None
    assert not np.array_equal(change_logits(logits, rows.output_changes), before)
    assert np.array(logits).tobytes() == before.tobytes()


def test_a_bias_gets_around_neither_the_grammar_nor_min_tokens() -> None:
    params = SamplingParams(logit_bias={4: 100.0, END: 100.0}, min_tokens=1)
    rows = Sampler(lambda request: frozenset([END]), SIZE).rows((make_request(0, params, [2], []),), (0,))
    logits = mx.array(spread_logits(0, SIZE)[None])
    assert sample(logits, None, rows).item() == 4
    assert sample(logits, mask_of([{0, 1, END}], SIZE), rows).item() in (0, 1)


def test_end_tokens_wait_for_as_many_tokens_as_min_tokens_and_no_longer() -> None:
    logits = mx.array(np.array([[0.0] * END + [9.0]], dtype=np.float32))
    sampler = Sampler(lambda request: frozenset([END, SIZE + 5]), SIZE)
    request = make_request(0, SamplingParams(min_tokens=2), [1], [])
    drawn = []
    for _ in range(3):
        drawn.append(sample(logits, None, sampler.rows((request,), (0,))).item())
        request.token_ids.append(0)
    assert drawn == [0, 0, END]
    assert sampler.rows((request,), (0,)).forbidden is None


def entries_of(*arrays: mx.array) -> list[tuple[int, ...]]:
    return sorted(tuple(map(int, entry)) for entry in np.stack([np.array(array) for array in arrays], axis=1))


def test_only_the_rows_that_ask_send_entries_and_each_token_once() -> None:
    sampler = Sampler(no_end, SIZE)
    plain = make_request(0, SamplingParams(), [1, 2, 3], [4])
    counted = make_request(1, SamplingParams(frequency_penalty=1.0), [1, 2, 3], [4, 4, 5])
    biased = make_request(2, SamplingParams(logit_bias={7: 1.0}), [1, 2, 3], [4, 4, 5])
    rows = sampler.rows((plain, counted, biased), (0, 0, 0))
    changes = rows.output_changes
    assert changes is not None and changes.offsets is not None and changes.factors is None
    assert entries_of(changes.rows, changes.token_ids, changes.offsets) == [(1, 4, -2), (1, 5, -1), (2, 7, 1)]
    assert rows.prompt_changes is None
    assert sampler.rows((plain,), (0,)).output_changes is None


def test_the_prompts_changes_are_sent_once_for_the_same_rows() -> None:
    sampler = Sampler(no_end, SIZE)
    requests = tuple(make_request(i, SamplingParams(repetition_penalty=2.0), [i, 3, 3], []) for i in range(2))
    first = sampler.rows(requests, (0,) * len(requests)).prompt_changes
    requests[0].token_ids.append(5)
    assert first is not None and sampler.rows(requests, (0,) * len(requests)).prompt_changes is first
    assert entries_of(first.rows, first.token_ids) == [(0, 0), (0, 3), (1, 1), (1, 3)]
    swapped = sampler.rows(requests[::-1], (0,) * len(requests)).prompt_changes
    assert swapped is not None
    assert entries_of(swapped.rows, swapped.token_ids) == [(0, 1), (0, 3), (1, 0), (1, 3)]


def test_nothing_is_kept_of_a_request_that_ended() -> None:
    sampler = Sampler(no_end, SIZE)
    request = make_request(0, SamplingParams(presence_penalty=1.0), [1], [2])
    sampler.rows((request,), (0,))
    request.finish_reason = "stop"
    sampler.forget(request)
    assert sampler.rows((request,), (0,)).output_changes is None
    assert sampler._penalties == {}


def test_a_row_after_a_part_of_a_draft_has_the_parameters_of_a_request_with_those_tokens() -> None:
    """Position, penalties and the wait for min_tokens; what the request itself has counted stays as it is."""
    params = SamplingParams(
        temperature=1.0, min_tokens=4, presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=1.5
    )
    logits = np.random.default_rng(0).normal(size=(1, SIZE)).astype(np.float32)
    drafted = make_request(0, params, [1, 2], [3])
    drafted.draft = Draft((3, 4, 3), (False,) * 3)
    sampler = Sampler(lambda request: frozenset([END]), SIZE)
    for _ in range(2):
        rows = sampler.rows((drafted,) * 4, (0, 1, 2, 3))
        for place in range(4):
            plain = make_request(0, params, [1, 2], [3, *drafted.draft.token_ids[:place]])
            alone = Sampler(lambda request: frozenset([END]), SIZE).rows((plain,), (0,))
            assert rows.position[place] == alone.position[0]
            with pytest.MonkeyPatch.context() as monkeypatch:
                seen = logits_seen(monkeypatch, np.repeat(logits, 4, axis=0), rows)[place]
                assert seen.tobytes() == logits_seen(monkeypatch, logits, alone)[0].tobytes()

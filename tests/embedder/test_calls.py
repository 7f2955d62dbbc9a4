"""Which texts share a forward: little padding, and nobody waits behind a large call."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.embedder.calls import Call, PendingCalls, Row
from tests.support.search import examples


def call_of(*lengths: int) -> Call:
    return Call([[0] * length for length in lengths], lengths, dimensions=1)


def pending_of(*calls: Call, max_tokens: int = 100, min_fill: float = 0.8, few_tokens: int = 0) -> PendingCalls:
    pending = PendingCalls(max_tokens, min_fill, few_tokens)
    for call in calls:
        pending.add(call)
    return pending


def lengths_of(rows: list[Row]) -> list[int]:
    return [len(row.token_ids) for row in rows]


@settings(max_examples=examples(200))
@given(st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=8), min_size=1, max_size=8), st.integers(0, 60))
def test_every_text_is_computed_once_in_batches_within_the_bounds(lengths: list[list[int]], few_tokens: int) -> None:
    calls = [call_of(*each) for each in lengths]
    pending = pending_of(*calls, few_tokens=few_tokens)
    seen = list[tuple[int, int]]()
    while pending:
        rows = pending.take_batch()
        longest = len(rows[0].token_ids)
        assert len(rows) == 1 or len(rows) * longest <= 100
        assert max(lengths_of(rows)) == longest
        assert min(lengths_of(rows)) >= 0.8 * longest or len(rows) * longest <= few_tokens
        seen += [(calls.index(row.call), row.position) for row in rows]
    assert sorted(seen) == [(call, text) for call, each in enumerate(lengths) for text in range(len(each))]


def test_texts_of_many_callers_share_a_batch() -> None:
    pending = pending_of(*(call_of(10) for _ in range(10)))
    assert lengths_of(pending.take_batch()) == [10] * 10
    assert not pending


def test_few_texts_share_a_batch_whatever_their_lengths() -> None:
    pending = pending_of(call_of(1, 7, 3), call_of(5), few_tokens=21)
    assert lengths_of(pending.take_batch()) == [7, 3, 1]
    assert lengths_of(pending.take_batch()) == [5]


def test_a_small_call_waits_for_one_batch_of_a_large_one() -> None:
    small = call_of(3)
    pending = pending_of(call_of(*[50] * 1000), small)
    assert lengths_of(pending.take_batch()) == [50, 50]
    assert [row.call for row in pending.take_batch()] == [small]


def test_vectors_are_in_the_order_of_the_texts() -> None:
    call = call_of(1, 3, 2)
    pending = pending_of(call, min_fill=0)
    for row in pending.take_batch():
        row.call.deliver(row.position, np.array([len(row.token_ids)], np.float32))
    assert call.future.result(timeout=0).tolist() == [[1], [3], [2]]

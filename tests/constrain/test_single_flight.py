"""A store of values that are made once for all who ask at the same time."""

import threading

import pytest

from mlx_agent_llm.constrain.single_flight import SingleFlight


def test_one_compilation_serves_all_who_ask_for_it_at_the_same_time() -> None:
    store = SingleFlight[int](2)
    calls: list[str] = []
    begun = threading.Event()
    go_on = threading.Event()

    def make() -> int:
        calls.append("made")
        begun.set()
        assert go_on.wait(10)
        return len(calls)

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(store.get("key", make))) for _ in range(4)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert results == [1] * 4 and calls == ["made"]


def test_a_failure_is_not_kept() -> None:
    store = SingleFlight[int](2)
    with pytest.raises(ZeroDivisionError):
        store.get("key", lambda: 1 // 0)
    assert not store._futures
    assert store.get("key", lambda: 7) == 7 == store.get("key", lambda: 8)

"""The default run draws the same cases on every machine, in every order and after any other test."""

import sys
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.search import examples, seed_everything


def drawn() -> list[tuple[int, str, float]]:
    """The cases of one search."""
    cases = []

    @settings(max_examples=examples(100))
    @given(st.integers(), st.text(), st.floats(allow_nan=False))
    def search(integer: int, text: str, number: float) -> None:
        cases.append((integer, text, number))

    search()
    return cases


@pytest.mark.skipif(not settings.default.derandomize, reason="a long run draws other cases each time")
def test_a_search_draws_the_same_cases_whatever_modules_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn()
    module = ModuleType("of_constants")
    module.__file__ = str(tmp_path / "of_constants.py")
    Path(module.__file__).write_text("".join(f"A{i} = {10**6 + i}, 'text {i}', {i + 0.123}\n" for i in range(40)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert drawn() == before


def test_no_global_random_number_depends_on_what_ran_before() -> None:
    first = mx.random.normal((3,)).tolist(), np.random.random(3).tolist()
    seed_everything(0)
    assert (mx.random.normal((3,)).tolist(), np.random.random(3).tolist()) == first

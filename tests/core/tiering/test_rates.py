"""Whether a prompt is read, computed or both follows from what reading and computing took."""

import math

import pytest

from mlx_agent_llm.core.tiering.rates import ReadingRates

MEGABYTE = 10**6
NUM_TOKENS = 1000  # of a kilobyte each


def rates_of(reading_seconds: float, putting_seconds: float = 0.0) -> ReadingRates:
    """Of a megabyte."""
    rates = ReadingRates()
    rates.count(MEGABYTE, reading_seconds, putting_seconds)
    return rates


@pytest.mark.parametrize(
    ("reading", "putting", "computing", "name", "num_to_compute"),
    [
        (0.1, 0.0, 10.0, "read", 0),
        (10.0, 0.0, 0.1, "compute", NUM_TOKENS),
        (1.0, 0.0, 1.0, "both", 500),
        (3.0, 0.0, 1.0, "both", 750),
        (1.0, 0.0, 3.0, "both", 250),
        (1.0, 0.0, 5.0, "read", 0),
        (5.0, 0.0, 1.0, "compute", NUM_TOKENS),
        (0.1, 2.0, 1.0, "compute", NUM_TOKENS),  # the engine's thread would take longer to put it than to compute it
        (2.0, 0.5, 2.0, "both", 428),
        (1.0, 0.9, 1.1, "read", 0),
    ],
)
def test_the_shorter_way_is_taken_and_both_where_they_take_about_as_long(
    reading: float, putting: float, computing: float, name: str, num_to_compute: int
) -> None:
    way = rates_of(reading, putting).choose(MEGABYTE, NUM_TOKENS, NUM_TOKENS / computing)
    assert (way.name, way.num_to_compute) == (name, num_to_compute)


def test_a_prompt_waits_for_the_disk_as_long_as_computing_would_take() -> None:
    assert rates_of(0.1).choose(MEGABYTE, NUM_TOKENS, NUM_TOKENS / 7).patience == 7
    assert rates_of(0.001).choose(MEGABYTE, NUM_TOKENS, NUM_TOKENS / 0.01).patience == 0.5
    assert rates_of(1.0).choose(MEGABYTE, NUM_TOKENS, NUM_TOKENS).patience == 0


def test_before_anything_was_read_or_computed_reading_is_tried() -> None:
    assert ReadingRates().choose(MEGABYTE, NUM_TOKENS, 10.0).name == "read"
    assert rates_of(10.0).choose(MEGABYTE, NUM_TOKENS, None) == ("read", 0, math.inf)


def test_a_disk_that_was_slow_once_is_used_again_when_it_is_fast() -> None:
    rates = rates_of(1000.0)
    names = []
    for _ in range(20):
        names.append(rates.choose(MEGABYTE, NUM_TOKENS, NUM_TOKENS).name)
        rates.count(MEGABYTE, 0.01, 0.0)
    assert names[0] == "compute" and names[-1] == "read"

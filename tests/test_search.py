"""That a long run searches further than the default one."""

from hypothesis import settings

from tests.support import search


def test_a_long_run_draws_other_cases_each_time_and_more_of_them() -> None:
    default, long = settings.get_profile("default"), settings.get_profile("long")
    assert default.derandomize and not long.derandomize
    assert long.max_examples > default.max_examples
    assert search.examples(3) == (3 if settings.default.derandomize else 60)

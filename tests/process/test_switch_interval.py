"""The interpreter's switch interval: short while an engine runs, and the user's own otherwise."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from mlx_agent_llm.process.switch_interval import ShortSwitchInterval

USUAL, SHORT = 0.005, 0.0005


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    sys.setswitchinterval(before)


def test_it_is_short_until_the_last_one_leaves() -> None:
    interval = ShortSwitchInterval()
    with interval:
        with interval:
            assert sys.getswitchinterval() == SHORT
        assert sys.getswitchinterval() == SHORT
    assert sys.getswitchinterval() == USUAL


def test_a_shorter_one_of_the_user_s_stays() -> None:
    sys.setswitchinterval(0.0001)
    shorter = sys.getswitchinterval()
    interval = ShortSwitchInterval()
    with interval:
        assert sys.getswitchinterval() == shorter
    assert sys.getswitchinterval() == shorter


def test_what_the_user_sets_meanwhile_stays() -> None:
    interval = ShortSwitchInterval()
    with interval:
        sys.setswitchinterval(0.01)
    assert sys.getswitchinterval() == 0.01


_ENGINES = """
import sys
from mlx_agent_llm import Engine
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

engines = [Engine(from_parts(tiny_model(), ByteTokenizer())) for _ in range(2)]
for engine in engines:
    engine.generate(["a"])  # now its thread runs for sure
    print(sys.getswitchinterval())
    engine.close()
print(sys.getswitchinterval())
"""


def test_it_is_short_as_long_as_an_engine_is_open() -> None:
    done = subprocess.run([sys.executable, "-c", _ENGINES], capture_output=True, text=True, check=True)
    assert list(map(float, done.stdout.split())) == [SHORT, SHORT, USUAL]

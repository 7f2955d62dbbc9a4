"""How far random tests search: the same few cases in every default run, others and many more under -m long."""

import random

import mlx.core as mx
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

_WIDER = 20
_EVERYWHERE = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],  # it asks how busy the machine is
}

settings.register_profile("default", derandomize=True, **_EVERYWHERE)
settings.register_profile("long", derandomize=False, max_examples=_WIDER * 100, **_EVERYWHERE)


def load_profile(name: str) -> None:
    """Make "default" or "long" what `settings` begins with; it has to come before the tests are imported."""
    settings.load_profile(name)
    # Otherwise the constants of every module that is loaded are drawn, too: other cases after other tests.
    providers._get_local_constants = lambda: providers._local_constants


def examples(count: int) -> int:
    """The number of examples of a test that makes `count` in the default run."""
    return count if settings.default.derandomize else _WIDER * count


def seed_everything(seed: int) -> None:
    """Begin all global random numbers anew."""
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)

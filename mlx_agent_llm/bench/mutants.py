"""Values that differ from a given one in one place: some are still valid for its schema, most are not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

SCALARS = [None, True, False, 0, 1, -1, 3, 7.5, 10**6, "", "a", "abc", "2024-01-01", [], {}, [1], {"a": 1}]


def mutants(value: Any, rng: random.Random) -> Iterator[Any]:
    """A value with one part changed, taken out, doubled or put in, at one place after the other."""
    if isinstance(value, dict):
        for name in value:
            yield {key: item for key, item in value.items() if key != name}
            for changed in mutants(value[name], rng):
                yield value | {name: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield value[:index] + value[index + 1 :]
            yield [*value[: index + 1], item, *value[index + 1 :]]
            for changed in mutants(item, rng):
                yield [*value[:index], changed, *value[index + 1 :]]
    elif isinstance(value, str):
        yield from {value + "x", value[1:], value[:-1], value.upper()} - {value}
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (value + 1, value - 1)
    yield rng.choice(SCALARS)

"""Values that hypothesis-jsonschema finds for a schema, in the forms that grammars have for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from hypothesis.internal.conjecture.utils import many
from hypothesis_jsonschema import _from_schema, from_schema

LARGEST = 10**6


class _Many(many):
    """What hypothesis-jsonschema asks for: in hypothesis itself `more` became an iterator."""

    def more(self) -> bool:
        if self._depth is None:
            self.__enter__()
            self._steps = iter(self)
        return next(self._steps, True) is None


_from_schema.cu = SimpleNamespace(many=_Many)


def instances(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema without references in circles, their numbers short and their properties in order."""
    orders = [list(names) for names in _declared(schema)]
    return from_schema(schema, codec="utf-8").map(lambda value: _as_written(value, orders))


def _declared(schema: Any) -> Iterator[dict[str, Any]]:
    """The `properties` of all objects of a schema."""
    if isinstance(schema, dict) and isinstance(schema.get("properties"), dict):
        yield schema["properties"]
    if isinstance(schema, dict | list):
        for one in schema.values() if isinstance(schema, dict) else schema:
            yield from _declared(one)


def _as_written(value: Any, orders: list[list[str]]) -> Any:
    """The value with properties as the list of names orders them that knows most of them, the others last."""
    if isinstance(value, dict):
        order = max(orders, key=lambda names: (len(value.keys() & names), -len(names)), default=[])
        names = [*(name for name in order if name in value), *(name for name in value if name not in order)]
        return {name: _as_written(value[name], orders) for name in names}
    if isinstance(value, list):
        return [_as_written(item, orders) for item in value]
    return value if isinstance(value, bool) else _short(value)


def _short(value: Any) -> Any:
    """A number with few digits; the rest as it is."""
    if isinstance(value, float):
        return round(math.fmod(value, LARGEST), 3) + 0.0  # no -0.0
    return value % LARGEST if isinstance(value, int) and abs(value) > 10**15 else value

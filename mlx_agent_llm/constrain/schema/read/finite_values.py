"""All values of a formula, where they are few."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.values.json_text import canonical_json
from mlx_agent_llm.constrain.schema.values.number_type import NumberType, first_integer, holds, last_integer
from mlx_agent_llm.constrain.schema.values.object_type import ObjectType
from mlx_agent_llm.languages.regular import finite_texts


class _TooManyError(Exception):
    """There are more values than asked for, or nobody can tell."""


def finite_values(reader: SchemaReader, formula: Formula, limit: int) -> list[Any] | None:
    """All values of a formula, none equal to another; None where they are more than `limit` or not cheap to find."""
    try:
        return reader.ask(lambda: _Values(reader, limit).of(formula))
    except (_TooManyError, RecursionError):
        return None


class _Values:
    def __init__(self, reader: SchemaReader, limit: int) -> None:
        self._reader = reader
        self._limit = limit

    def of(self, formula: Formula) -> list[Any]:
        types = self._reader.types(formula)
        values: list[Any] = [None] if types.null else []
        values += sorted(types.booleans)
        for numbers in types.numbers:
            values += self._numbers(numbers)
        texts = finite_texts(types.strings, self._limit)
        if texts is None:
            raise _TooManyError
        values += texts
        for arrays in types.arrays:
            values += self._arrays(arrays)
        for objects in types.objects:
            values += self._objects(objects)
        different = {canonical_json(value): value for value in values}
        if len(different) > self._limit:
            raise _TooManyError
        return list(different.values())

    def _numbers(self, numbers: NumberType) -> list[int | float]:
        if numbers.constant is not None:
            return [numbers.constant]
        if numbers.is_integer is not True or numbers.low is None or numbers.high is None:
            raise _TooManyError
        first, last = first_integer(numbers.low), last_integer(numbers.high)
        if last - first > self._limit:
            raise _TooManyError
        return [value for value in range(first, last + 1) if holds(numbers, value)]

    def _arrays(self, arrays: ArrayType) -> Iterator[list[Any]]:
        most = len(arrays.prefix) if self._reader.is_surely_empty(arrays.items) else arrays.most
        if most is None or most > self._limit or arrays.contains or arrays.unique is not None:
            raise _TooManyError
        choices: list[list[Any]] = []
        for length in range(most + 1):
            if length >= arrays.least:
                yield from map(list, self._product(choices))
            if length < most:
                choices.append(self.of(arrays.item(length)))

    def _objects(self, objects: ObjectType) -> Iterator[dict[str, Any]]:
        is_open = any(not self._reader.is_surely_empty(formula) for _, formula in objects.others)
        if is_open or objects.witnesses or objects.least or objects.most is not None:
            raise _TooManyError
        absent: list[Any] = [_ABSENT]
        choices = [self.of(value) + ([] if name in objects.required else absent) for name, value in objects.named]
        for values in self._product(choices):
            pairs = zip(objects.named, values, strict=True)
            yield {name: value for (name, _), value in pairs if value is not _ABSENT}

    def _product(self, choices: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
        count = 1
        for each in choices:
            count *= len(each)
        if count > self._limit:
            raise _TooManyError
        return product(*choices)


_ABSENT = object()

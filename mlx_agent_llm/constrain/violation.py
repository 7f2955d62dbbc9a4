"""What is wrong with a value by its JSON Schema: the one check of values that no grammar, or only a part of it, wrote.

It reads schemas as the grammars do: as 2020-12 unless `$schema` says otherwise, and a format as what the grammar of the
format holds, so that whatever a grammar writes is valid here, also under `not`, and on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import validator_for

from mlx_agent_llm.constrain.schema.values.formats import FORMATS, language_of_format


class Violation(NamedTuple):
    """Where a value breaks its schema, as keys from the outside in and as a JSONPath, and how."""

    path: tuple[str | int, ...]
    json_path: str
    message: str

    def __str__(self) -> str:
        return f"{self.json_path}: {self.message}"


def violation(schema: dict[str, Any], value: Any) -> Violation | None:
    """The first thing that is wrong with a value; None when it is valid."""
    return next(violations(schema, value), None)


def violations(schema: dict[str, Any], value: Any) -> Iterator[Violation]:
    """Everything that is wrong with a value."""
    validator = validator_for(schema, default=Draft202012Validator)(schema, format_checker=_FORMAT_CHECKER)
    try:
        for error in validator.iter_errors(value):
            yield Violation(tuple(error.absolute_path), error.json_path, error.message)
    except RecursionError:
        yield Violation((), "$", "it is nested too deeply to be checked")


def _is_of_format(name: str, value: object) -> bool:
    return not isinstance(value, str) or language_of_format(name).matches(value)


def _make_format_checker() -> FormatChecker:
    """Formats that no grammar writes are not checked, but for regular expressions."""
    checker = FormatChecker(["regex"])
    for name in FORMATS:
        checker.checks(name)(partial(_is_of_format, name))
    return checker


_FORMAT_CHECKER = _make_format_checker()

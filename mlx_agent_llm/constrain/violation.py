"""What is wrong with a value by its JSON Schema: the one check of values that no grammar, or only a part of it, wrote.

It reads schemas as the grammars do: in the same dialect, patterns as ECMA-262 has them, and a format as what the
grammar of the format holds, so that whatever a grammar writes is valid here, also under `not`, and on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

from jsonschema import FormatChecker
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from mlx_agent_llm.constrain.schema.values.formats import (
    NUMBER_FORMATS,
    STRING_FORMATS,
    is_of_number_format,
    language_of_format,
)
from mlx_agent_llm.constrain.validators import validator_class
from mlx_agent_llm.languages.regex.python_pattern import python_pattern
from mlx_agent_llm.request.content_key import content_key
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, Documents

_MAPS_OF_SCHEMAS = frozenset("properties $defs definitions dependentSchemas dependencies".split())
_VALUES = frozenset("const enum default examples example".split())


class Violation(NamedTuple):
    """Where a value breaks its schema, as keys from the outside in and as a JSONPath, and how."""

    path: tuple[str | int, ...]
    json_path: str
    message: str

    def __str__(self) -> str:
        return f"{self.json_path}: {self.message}"


def violation(schema: dict[str, Any], value: Any, documents: Documents = NO_DOCUMENTS) -> Violation | None:
    """The first thing that is wrong with a value; None when it is valid."""
    return next(violations(schema, value, documents), None)


def violations(schema: dict[str, Any], value: Any, documents: Documents = NO_DOCUMENTS) -> Iterator[Violation]:
    """Everything that is wrong with a value. documents: further schemas by their URIs, for references.

    ConstraintError for a pattern that is none.
    """
    validator = _validator(content_key("", [schema, dict(documents)])[1:])
    try:
        for error in validator.iter_errors(value):
            yield Violation(tuple(error.absolute_path), error.json_path, error.message)
    except RecursionError:
        yield Violation((), "$", "it is nested too deeply to be checked")


@lru_cache(maxsize=64)
def _validator(content: str) -> Validator:
    schema, documents = _with_python_patterns(json.loads(content))
    resources = ((uri, DRAFT202012.create_resource(document)) for uri, document in documents.items())
    registry: Registry[Any] = Registry().with_resources(resources)
    return validator_class(schema)(schema, registry=registry, format_checker=_FORMAT_CHECKER)


def _with_python_patterns(node: Any, is_map: bool = False) -> Any:
    """A copy of a schema with the patterns of Python's `re`. is_map: whether the keys are names, and no keywords."""
    if isinstance(node, list):
        return [_with_python_patterns(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: value if key in _VALUES and not is_map else _translated(key, value, is_map) for key, value in node.items()
    }


def _translated(key: str, value: Any, is_map: bool) -> Any:
    if key == "pattern" and isinstance(value, str) and not is_map:
        return python_pattern(value)
    if key == "patternProperties" and isinstance(value, dict) and not is_map:
        return {python_pattern(pattern): _with_python_patterns(schema) for pattern, schema in value.items()}
    return _with_python_patterns(value, is_map=key in _MAPS_OF_SCHEMAS and not is_map)


def _is_of_format(name: str, value: object) -> bool:
    if name in NUMBER_FORMATS:
        return not isinstance(value, int | float) or isinstance(value, bool) or is_of_number_format(name, value)
    return not isinstance(value, str) or language_of_format(name).matches(value)


def _make_format_checker() -> FormatChecker:
    """Formats that no grammar writes are not checked."""
    checker = FormatChecker([])
    for name in STRING_FORMATS | NUMBER_FORMATS.keys():
        checker.checks(name)(partial(_is_of_format, name))
    return checker


_FORMAT_CHECKER = _make_format_checker()

"""The validators of the library `jsonschema`, by the dialects as the grammars read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jsonschema import (
    Draft3Validator,
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
)
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from mlx_agent_llm.request.schema_dialect import dialect_of

Check = Callable[[Any, Any, Any, dict[str, Any]], Iterable[Any] | None]
_NEW: Mapping[str, Check] = Draft202012Validator.VALIDATORS
_OLD: Mapping[str, Check] = Draft4Validator.VALIDATORS
_DRAFT_7: Mapping[str, Check] = Draft7Validator.VALIDATORS


def validator_class(schema: Any) -> type[Validator]:
    """The validator class of a schema's dialect."""
    return _CLASSES.get(dialect_of(schema).name, Draft202012Validator)


def _bound(keyword: str, exclusive: str) -> Check:
    """A bound that a boolean beside it opens."""

    def check(validator: Any, bound: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
        return (_OLD if schema.get(exclusive) is True else _NEW)[keyword](validator, bound, instance, schema)

    return check


def _exclusive(keyword: str) -> Check:
    def check(validator: Any, bound: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
        return None if isinstance(bound, bool) else _NEW[keyword](validator, bound, instance, schema)

    return check


def _items(validator: Any, items: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
    keywords = _DRAFT_7 if isinstance(items, list) else _NEW
    return keywords["items"](validator, items, instance, schema)


def _type(validator: Any, types: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
    is_allowed_null = instance is None and schema.get("nullable") is True
    return None if is_allowed_null else _NEW["type"](validator, types, instance, schema)


_SILENT: type[Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "minimum": _bound("minimum", "exclusiveMinimum"),
        "maximum": _bound("maximum", "exclusiveMaximum"),
        "exclusiveMinimum": _exclusive("exclusiveMinimum"),
        "exclusiveMaximum": _exclusive("exclusiveMaximum"),
        "items": _items,
        "type": _type,
        "additionalItems": _DRAFT_7["additionalItems"],
        "dependencies": _DRAFT_7["dependencies"],
        "$recursiveRef": Draft201909Validator.VALIDATORS["$recursiveRef"],
    },
)
_CLASSES: dict[str, type[Validator]] = {
    "silent": _SILENT,
    "draft-03": Draft3Validator,
    "draft-04": Draft4Validator,
    "draft-06": Draft6Validator,
    "draft-07": Draft7Validator,
    "2019-09": Draft201909Validator,
}

"""SamplingParams and constraints as JSON: what is not said has its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import Choice, Constraint, Grammar, JSONSchema, Regex, SamplingParams

_NAMES = frozenset(field.name for field in fields(SamplingParams))
_DEFAULT = SamplingParams()


def json_of_params(params: SamplingParams) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    values = {name: getattr(params, name) for name in sorted(_NAMES)}
    given = {name: value for name, value in values.items() if value != getattr(_DEFAULT, name)}
    if params.constraint is not None:
        given["constraint"] = json_of_constraint(params.constraint)
    if params.logit_bias:
        given["logit_bias"] = {str(token_id): bias for token_id, bias in params.logit_bias.items()}
    return given


def params_of_json(value: Mapping[str, Any]) -> SamplingParams:
    """The parameters; a RequestError where one is unknown or has a bad value."""
    if unknown := value.keys() - _NAMES:
        raise RequestError(f"unknown sampling parameter: {sorted(unknown)[0]}")
    given = dict(value)
    if "constraint" in given:
        given["constraint"] = constraint_of_json(given["constraint"])
    if "logit_bias" in given:
        given["logit_bias"] = _read_bias(given["logit_bias"])
    return SamplingParams(**given)


def json_of_constraint(constraint: Constraint) -> dict[str, Any]:
    """The one kind of a constraint, with what defines it."""
    match constraint:
        case JSONSchema():
            schema = {"schema": constraint.json_schema, "strict": constraint.strict}
            documents, separators = dict(constraint.documents), list(constraint.separators)
            return {"json": {**schema, "documents": documents, "separators": separators}}
        case Regex():
            return {"regex": constraint.pattern}
        case Grammar():
            return {"grammar": constraint.ebnf}
        case Choice():
            return {"choice": list(constraint.texts)}
    raise AssertionError(f"no constraint: {constraint!r}")


def constraint_of_json(value: Any) -> Constraint:
    """The constraint; a RequestError where it is none."""
    match value:
        case {"json": {"schema": schema, "strict": strict, "documents": documents, "separators": separators}}:
            return JSONSchema(schema, strict, documents, separators)
        case {"regex": pattern}:
            return Regex(pattern)
        case {"grammar": ebnf}:
            return Grammar(ebnf)
        case {"choice": texts}:
            return Choice(texts)
    raise RequestError(f"constraint={value!r:.200} must be one of json, regex, grammar and choice")


def _read_bias(value: Any) -> Any:
    """The bias by token ids; keys of JSON are texts."""
    try:
        return {int(token_id): bias for token_id, bias in value.items()}
    except (AttributeError, ValueError):
        raise RequestError(f"logit_bias={value!r:.200} must be numbers by token ids") from None

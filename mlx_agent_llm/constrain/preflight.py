"""What a JSON Schema may say so that the grammar enforces it exactly: a list of what is allowed, never of what is not.

Exact means that every text of the grammar parses as JSON and is valid for the schema (Draft 2020-12). The grammar may
allow less than the schema: an object with declared properties holds no others, properties come in declared order,
an integer has at most 19 digits, a decimal at most 15, and a number with bounds has no exponent. Nesting is as deep as
the token budget allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

from mlx_agent_llm.constrain.leaves import allowed_values, bounds_of, kinds_of
from mlx_agent_llm.constrain.number_ranges import Bounds, decimal_grid, integer_grid
from mlx_agent_llm.constrain.references import pointer, resolve_reference
from mlx_agent_llm.constrain.spec import content_key
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError

MAX_BOUNDED_LENGTH = 64
MAX_ITEM_COUNT = 10_000

# Keywords that say nothing about a value, or only hold schemas that a $ref may name.
ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment $schema $defs definitions".split()
)
NUMBER_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
KEYWORDS_BY_TYPE: dict[str, frozenset[str]] = {
    "any": frozenset(),
    "null": frozenset(),
    "boolean": frozenset(),
    "integer": NUMBER_KEYWORDS,
    "number": NUMBER_KEYWORDS,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
# The keyword that decides what a schema is, and the keywords that may stand beside it.
COMPANIONS: dict[str, frozenset[str]] = {
    "$ref": frozenset(),
    "const": frozenset({"type"}),
    "enum": frozenset({"type"}),
    "anyOf": frozenset(),
    "allOf": frozenset(),
}


def check_schema(schema: dict[str, Any]) -> None:
    """Raise unless the grammar of `schema` is exact and somebody can finish a value of it.

    UnsupportedSchemaError names the pointer and the keyword that cannot be enforced; ConstraintError is raised for what
    is no JSON Schema, contradicts itself, refers to nothing, or has no end.
    """
    content_key("schema", schema)
    try:
        _check_form(schema, "")
        preflight = _Preflight(schema)
        preflight.check(schema, "", ())
        preflight.check_references_end()
    except RecursionError:
        raise ConstraintError("schema is nested too deeply") from None


class _Preflight:
    """Visits every subschema that a value can meet."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._visited: set[str] = set()

    def check(self, schema: Any, place: str, chain: tuple[str, ...]) -> None:
        """Check one subschema; `chain` holds the references followed since the last value began."""
        if schema is True:
            return
        if schema is False:
            raise ConstraintError(f"schema{place}: false allows no value")
        keywords = set(schema) - ANNOTATIONS - ({"$id"} if place == "" else set())
        main = next((keyword for keyword in COMPANIONS if keyword in keywords), "type")
        allowed = COMPANIONS[main] | {main} if main in COMPANIONS else self._allowed_by_type(schema)
        for keyword in sorted(keywords - allowed):
            raise UnsupportedSchemaError(place, keyword, _reason(keyword, main, schema))
        checks: dict[str, Callable[[dict[str, Any], str, tuple[str, ...]], None]] = {
            "$ref": self._check_reference,
            "const": self._check_values,
            "enum": self._check_values,
            "anyOf": self._check_branches,
            "allOf": self._check_branches,
            "type": self._check_typed,
        }
        checks[main](schema, place, chain)

    def check_references_end(self) -> None:
        """Raise for a visited reference that requires itself, so that no value of it is finite."""
        ending: frozenset[str] = frozenset()
        while new := {name for name in self._visited - ending if _ends(resolve_reference(self._schema, name), ending)}:
            ending |= new
        for reference in sorted(self._visited - ending):
            raise ConstraintError(f"$ref={reference!r} requires itself: no value of it ever ends")

    def _allowed_by_type(self, schema: dict[str, Any]) -> frozenset[str]:
        return frozenset({"type"}).union(*(KEYWORDS_BY_TYPE[kind] for kind in kinds_of(schema)))

    def _check_reference(self, schema: dict[str, Any], place: str, chain: tuple[str, ...]) -> None:
        reference = schema["$ref"]
        if reference in chain:
            raise ConstraintError(f"schema{place}: $ref={reference!r} leads back to itself without a value in between")
        if reference in self._visited:
            return
        self._visited.add(reference)
        target = resolve_reference(self._schema, reference)
        _check_form(target, reference[1:])
        self.check(target, reference[1:], (*chain, reference))

    def _check_values(self, schema: dict[str, Any], place: str, chain: tuple[str, ...]) -> None:
        if "const" in schema and "enum" in schema:
            raise UnsupportedSchemaError(place, "enum", "it stands beside const")
        if not allowed_values(schema):
            raise ConstraintError(f"schema{place}: no value of {'const' if 'const' in schema else 'enum'} is allowed")

    def _check_branches(self, schema: dict[str, Any], place: str, chain: tuple[str, ...]) -> None:
        keyword = "anyOf" if "anyOf" in schema else "allOf"
        if keyword == "allOf" and len(schema["allOf"]) > 1:
            raise UnsupportedSchemaError(place, "allOf", "only an allOf of one schema is supported")
        for index, branch in enumerate(schema[keyword]):
            self.check(branch, place + pointer(keyword, index), chain)

    def _check_typed(self, schema: dict[str, Any], place: str, chain: tuple[str, ...]) -> None:
        for kind in kinds_of(schema):
            match kind:
                case "object":
                    self._check_object(schema, place)
                case "array":
                    self._check_array(schema, place)
                case "string":
                    _check_count(schema, place, "minLength", "maxLength", MAX_BOUNDED_LENGTH)
                case "integer" | "number":
                    _check_bounds(kind, bounds_of(schema), place)

    def _check_object(self, schema: dict[str, Any], place: str) -> None:
        properties = schema.get("properties", {})
        additional = schema.get("additionalProperties", False)
        if properties and additional is not False:
            raise UnsupportedSchemaError(
                place, "additionalProperties", "beside properties it would let a repeated key replace a declared one"
            )
        for name in schema.get("required", []):
            if name not in properties:
                raise UnsupportedSchemaError(place, "required", f"{name!r} is not declared in properties")
        for name, value in properties.items():
            self.check(value, place + pointer("properties", name), ())
        if additional is not False:
            self.check(additional, place + pointer("additionalProperties"), ())

    def _check_array(self, schema: dict[str, Any], place: str) -> None:
        _check_count(schema, place, "minItems", "maxItems", MAX_ITEM_COUNT)
        prefix, item = schema.get("prefixItems", []), schema.get("items", True)
        if item is False and schema.get("minItems", 0) > len(prefix):
            raise ConstraintError(f"schema{place}: minItems={schema['minItems']} but items=false allows {len(prefix)}")
        for index, element in enumerate(prefix):
            self.check(element, place + pointer("prefixItems", index), ())
        if item is not False:
            self.check(item, place + pointer("items"), ())


def _ends(schema: Any, ending: frozenset[str]) -> bool:
    """Return whether a finite value exists when those of the references in `ending` are known to."""
    if isinstance(schema, bool):
        return True
    if "$ref" in schema:
        return schema["$ref"] in ending
    if "anyOf" in schema:
        return any(_ends(branch, ending) for branch in schema["anyOf"])
    if "allOf" in schema:
        return all(_ends(branch, ending) for branch in schema["allOf"])
    return any(all(_ends(part, ending) for part in _needed_parts(kind, schema)) for kind in kinds_of(schema))


def _needed_parts(kind: str, schema: dict[str, Any]) -> list[Any]:
    """Return the subschemas that every value of this type must contain a value of."""
    if kind == "object":
        return [schema.get("properties", {}).get(name, True) for name in schema.get("required", [])]
    if kind == "array":
        least, prefix = int(schema.get("minItems", 0)), list(schema.get("prefixItems", []))
        return prefix[:least] + ([schema.get("items", True)] if least > len(prefix) else [])
    return []


def _check_form(schema: Any, place: str) -> None:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = place + pointer(*error.absolute_path)
        raise ConstraintError(f"schema{where} is not valid JSON Schema: {error.message[:200]}") from None


def _check_count(schema: dict[str, Any], place: str, lower: str, upper: str, bound: int) -> None:
    least, most = schema.get(lower, 0), schema.get(upper)
    for name, value in ((lower, least), (upper, most)):
        if value is not None and value > bound:
            raise UnsupportedSchemaError(place, name, f"{name}={value} is above {bound}, the most that is fast enough")
    if most is not None and least > most:
        raise ConstraintError(f"schema{place}: {lower}={least} is above {upper}={most}")


def _check_bounds(kind: str, bounds: Bounds, place: str) -> None:
    if bounds == Bounds():
        return
    grid = integer_grid(bounds) if kind == "integer" else decimal_grid(bounds)
    if grid is None:
        raise UnsupportedSchemaError(place, _first_bound(bounds), "a double cannot tell numbers near this bound apart")
    if grid.low > grid.high:
        raise ConstraintError(f"schema{place}: no {kind} lies within {_describe(bounds)}")


def _first_bound(bounds: Bounds) -> str:
    return next(name for name, bound in _named(bounds).items() if bound is not None)


def _describe(bounds: Bounds) -> str:
    return ", ".join(f"{name}={bound}" for name, bound in _named(bounds).items() if bound is not None)


def _named(bounds: Bounds) -> dict[str, int | float | None]:
    return dict(zip(("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"), bounds, strict=True))


def _reason(keyword: str, main: str, schema: dict[str, Any]) -> str:
    if main in COMPANIONS:
        return f"it stands beside {main}"
    if "type" not in schema:
        return "the schema has no type"
    return f"it is not supported for type {schema['type']!r}"

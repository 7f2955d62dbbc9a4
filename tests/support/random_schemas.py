"""Random JSON Schemas over a few values, and those values: small enough to compare a grammar with jsonschema on all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SCALARS: list[Any] = [None, True, False, -1, 0, 1, 2, 3, 5, 0.5, 2.5, "", "a", "b", "ab", "bba", "é"]
ARRAYS: list[Any] = [
    [],
    [1],
    ["a"],
    [1, 1],
    [1, 2],
    ["a", 1],
    [1, "a"],
    [2, 1, 1],
    [None, True, "b"],
    [1, 2, 3, 1],
    [[]],
]
OBJECTS: list[Any] = [
    {},
    {"a": 1},
    {"a": "b"},
    {"b": 2},
    {"a": 1, "b": 2},
    {"a": None, "b": "a"},
    {"ab": 1},
    {"a": 2, "ab": "a"},
    {"a": 1, "b": 1, "ab": 2},
    {"c": 3},
    {"a": {"a": 1}},
    {"b": [1, 2]},
    {"a": {}},
]
INSTANCES = SCALARS + ARRAYS + OBJECTS

numbers = st.sampled_from([-1, 0, 1, 2, 2.5, 3, 0.5])
counts = st.integers(0, 3)
names = st.sampled_from(["a", "b", "ab", "c"])
patterns = st.sampled_from(["^a", "b$", "^[ab]+$", "a|c", "^[^x]$", "^"])
values = st.sampled_from(INSTANCES)

ASSERTIONS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(
        ["null", "boolean", "integer", "number", "string", "array", "object", ["integer", "string"]]
    ),
    "const": values,
    "enum": st.lists(values, min_size=1, max_size=4),
    "minimum": numbers,
    "exclusiveMinimum": numbers,
    "maximum": numbers,
    "exclusiveMaximum": numbers,
    "multipleOf": st.sampled_from([1, 2, 3, 0.5, 2.5]),
    "minLength": counts,
    "maxLength": counts,
    "pattern": patterns,
    "minItems": counts,
    "maxItems": counts,
    "uniqueItems": st.booleans(),
    "required": st.lists(names, max_size=2, unique=True),
    "minProperties": st.integers(0, 2),
    "maxProperties": counts,
    "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=2),
}


def applicators(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Return the keywords that hold schemas."""
    several = st.lists(inner, min_size=1, max_size=3)
    by_name = st.dictionaries(names, inner, min_size=1, max_size=2)
    one = dict.fromkeys(
        ("not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames"), inner
    )
    return {
        **one,
        "unevaluatedItems": inner,
        "unevaluatedProperties": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "prefixItems": several,
        "properties": by_name,
        "dependentSchemas": by_name,
        "patternProperties": st.dictionaries(patterns, inner, min_size=1, max_size=2),
        "minContains": counts,
        "maxContains": counts,
    }


def _combined(inner: st.SearchStrategy[Any], assertions: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    choices = assertions | applicators(inner)
    keywords = st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=4, unique=True)
    return keywords.flatmap(lambda names: st.fixed_dictionaries({name: choices[name] for name in names}))


def _schemas(assertions: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(sorted(assertions))
    leaves = st.booleans() | names.flatmap(lambda name: st.fixed_dictionaries({name: assertions[name]}))
    references = st.sampled_from([{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/tree"}])
    combined = st.recursive(leaves | references, lambda inner: _combined(inner, assertions), max_leaves=8)
    return st.builds(
        lambda schema, x: {**schema, "$defs": {"x": x, "tree": TREE}},
        combined.filter(lambda schema: isinstance(schema, dict)),
        leaves,
    )


TREE = {"type": "object", "properties": {"a": {"$ref": "#/$defs/tree"}, "b": {}}, "maxProperties": 2}
NOT_ENFORCED = {"mystery": st.integers(), "format": st.just("mystery")}


def rooted_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Return schemas with definitions that their parts may refer to, themselves too."""
    return _schemas(ASSERTIONS)


def unenforced_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Return such schemas with keywords that no grammar enforces."""
    return _schemas(ASSERTIONS | NOT_ENFORCED)

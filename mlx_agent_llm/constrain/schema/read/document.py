"""A JSON Schema document: its dialect, its subschemas, and what its references name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7, DRAFT202012

from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, NOTHING, Formula
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.constraints import content_key

MAX_CHARACTERS = 500_000
DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": DRAFT202012,
    "http://json-schema.org/draft-07/schema": DRAFT7,
}


class Resolved(Protocol):
    """What a reference names, and what looks up the references in there."""

    @property
    def contents(self) -> Any:
        """The JSON value there."""

    @property
    def resolver(self) -> Resolver:
        """For the references in the value."""


class Resolver(Protocol):
    """What `Registry.resolver` of the library `referencing` returns: it has no public name there."""

    def lookup(self, ref: str) -> Resolved:
        """What a reference names."""

    def in_subresource(self, subresource: Resource[Any]) -> Resolver:
        """The resolver within a schema that has an `$id`."""


@dataclass(frozen=True, eq=False)
class Subschema(Formula):
    """The values that are valid for one schema object; each object of a document is one subschema, by identity.

    resolver: looks up its references. pointer: the JSON pointer of the object in its document.
    """

    keywords: dict[str, Any]
    resolver: Resolver
    pointer: str


class Document:
    """A copy of a schema, in which every schema object is one Subschema."""

    def __init__(self, schema: dict[str, Any] | bool) -> None:
        text = content_key("schema", schema).removeprefix("schema:")
        if len(text) > MAX_CHARACTERS:
            raise ConstraintError(f"schema has {len(text)} characters, more than {MAX_CHARACTERS}")
        self._schema = json.loads(text)
        self._dialect = _dialect_of(self._schema)
        self._subschemas: dict[int, Subschema] = {}
        self._parts: dict[tuple[int, tuple[str, ...]], Subschema] = {}

    @property
    def is_draft7(self) -> bool:
        """Whether the schema says that it is written in draft 7."""
        return self._dialect is DRAFT7

    def root(self) -> Formula:
        """The formula of the whole schema."""
        resource = self._dialect.create_resource(self._schema)
        uri = resource.id() or ""
        return self._formula(self._schema, Registry().with_resource(uri, resource).resolver(uri), "")

    def child(self, parent: Subschema, *steps: str | int) -> Formula:
        """The formula of the subschema at these steps of a subschema."""
        schema: Any = parent.keywords
        for step in steps:
            schema = schema[step]
        pointer = parent.pointer + json_pointer(*steps)
        if not isinstance(schema, dict | bool):
            raise ConstraintError(
                f"schema{pointer} is not valid JSON Schema: {schema!r} must be an object or a boolean"
            )
        resolver = parent.resolver
        if isinstance(schema, dict) and "$id" in schema:
            resolver = resolver.in_subresource(self._dialect.create_resource(schema))
        return self._formula(schema, resolver, pointer)

    def part(self, subschema: Subschema, keywords: dict[str, Any]) -> Formula:
        """The formula of some keywords of a subschema, as if the others were not there."""
        key = id(subschema.keywords), tuple(keywords)
        if key not in self._parts:
            self._parts[key] = Subschema(keywords, subschema.resolver, subschema.pointer)
        return self._parts[key]

    def follow(self, parent: Subschema, keyword: str) -> Formula:
        """The formula of what a `$ref` or `$dynamicRef` of this subschema names.

        ConstraintError when that is not here; UnsupportedSchemaError when it depends on the references before it.
        """
        reference = parent.keywords[keyword]
        if self._num_dynamic_anchors[reference.partition("#")[2]] > 1:
            reason = f"what {reference!r} names depends on the references before it"
            raise UnsupportedSchemaError(parent.pointer, keyword, reason)
        try:
            resolved = parent.resolver.lookup(reference)
        except (Unresolvable, ValueError):  # ValueError: not even a URI
            raise ConstraintError(
                f"schema{parent.pointer}: {keyword}={reference!r} cannot be resolved within the schema"
            ) from None
        if not isinstance(resolved.contents, dict | bool):
            raise ConstraintError(
                f"schema{parent.pointer}: {keyword}={reference!r} must name a schema, not {resolved.contents!r:.80}"
            )
        return self._formula(resolved.contents, resolved.resolver, self._pointers.get(id(resolved.contents), ""))

    @cached_property
    def _pointers(self) -> dict[int, str]:
        """The JSON pointers of all objects, by identity."""
        return {id(node): pointer for node, pointer in _objects_in(self._schema)}

    @cached_property
    def _num_dynamic_anchors(self) -> Counter[Any]:
        """How often a name is a `$dynamicAnchor`; one that is so once always names the same."""
        anchors = (node.get("$dynamicAnchor") for node, _ in _objects_in(self._schema))
        return Counter(anchor for anchor in anchors if isinstance(anchor, str))

    def _formula(self, schema: dict[str, Any] | bool, resolver: Resolver, pointer: str) -> Formula:
        if isinstance(schema, bool):
            return EVERYTHING if schema else NOTHING
        if not schema:
            return EVERYTHING
        if id(schema) not in self._subschemas:
            self._subschemas[id(schema)] = Subschema(schema, resolver, pointer)
        return self._subschemas[id(schema)]


def json_pointer(*steps: str | int) -> str:
    """The JSON pointer of these steps, '' for none."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _dialect_of(schema: dict[str, Any] | bool) -> Any:
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if name is None:
        return DRAFT202012
    dialect = DIALECTS.get(str(name).removesuffix("#"))
    if dialect is None:
        raise UnsupportedSchemaError("", "$schema", f"{name!r} is not one of {', '.join(DIALECTS)}")
    return dialect


def _objects_in(schema: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object within a schema with its JSON pointer."""
    open_nodes: list[tuple[Any, str]] = [(schema, "")]
    while open_nodes:
        node, pointer = open_nodes.pop()
        if isinstance(node, dict):
            yield node, pointer
            open_nodes += [(value, pointer + json_pointer(key)) for key, value in node.items()]
        elif isinstance(node, list):
            open_nodes += [(value, pointer + json_pointer(index)) for index, value in enumerate(node)]

"""A JSON Schema document: its dialect, its subschemas, and what its references name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT3, DRAFT4, DRAFT6, DRAFT7, DRAFT201909, DRAFT202012

from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, NOTHING, Formula
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.request.content_key import content_key
from mlx_agent_llm.request.schema_dialect import ANNOTATIONS, Dialect, dialect_of, json_pointer
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, Documents, SchemaDocuments

MAX_CHARACTERS = 4_000_000
# How references are looked up in each dialect; all others look them up as 2020-12 does.
_SPECIFICATIONS = {
    "draft-03": DRAFT3,
    "draft-04": DRAFT4,
    "draft-06": DRAFT6,
    "draft-07": DRAFT7,
    "2019-09": DRAFT201909,
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

    keywords: those that the dialect has; others: the rest, without annotations. resolver: looks up its
    references. pointer: the JSON pointer of the object in its document, after the address of a further document.
    """

    keywords: dict[str, Any]
    resolver: Resolver
    pointer: str
    dialect: Dialect
    others: Mapping[str, Any] = field(default_factory=dict)


class _Place(NamedTuple):
    """Where an object stands: its JSON pointer, and the dialect of its document."""

    pointer: str
    dialect: Dialect


class Document:
    """A copy of a schema, in which every schema object is one Subschema.

    documents: further schemas by their URIs, which references may name.
    """

    def __init__(self, schema: dict[str, Any] | bool, documents: Documents = NO_DOCUMENTS) -> None:
        self._main = _Parsed(_read(content_key("schema", schema)))
        self._schema = self._main.schema
        self._library = _library(SchemaDocuments.of(documents).keys_by_uri)
        self._documents = self._library.documents
        self._subschemas: dict[int, Subschema] = {}
        self._parts: dict[tuple[int, tuple[str, ...]], Subschema] = {}

    def root(self) -> Formula:
        """The formula of the whole schema."""
        dialect = dialect_of(self._schema)
        resource = _specification(dialect).create_resource(self._schema)
        uri = _identifier(resource, "") or ""
        registry = self._library.registry.with_resource(uri, resource)
        return self._formula(self._schema, registry.resolver(uri), _Place("", dialect))

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
        if isinstance(schema, dict) and not schema.keys().isdisjoint(("$id", "id")):
            resource = _specification(parent.dialect).create_resource(schema)
            resolver = resolver if _identifier(resource, pointer) is None else resolver.in_subresource(resource)
        return self._formula(schema, resolver, _Place(pointer, parent.dialect))

    def part(self, subschema: Subschema, keywords: dict[str, Any]) -> Formula:
        """The formula of some keywords of a subschema, as if the others were not there."""
        key = id(subschema.keywords), tuple(keywords)
        if key not in self._parts:
            self._parts[key] = replace(subschema, keywords=keywords, others={})
        return self._parts[key]

    def follow(self, parent: Subschema, keyword: str) -> Formula:
        """The formula of what a `$ref`, `$dynamicRef` or `$recursiveRef` of this subschema names.

        ConstraintError when that is not here; UnsupportedSchemaError when it depends on the references before it.
        """
        reference = parent.keywords[keyword]
        anchor = keyword if keyword == "$recursiveRef" else reference.partition("#")[2]
        if not anchor.startswith("/") and self._num_anchors[anchor] > 1:
            reason = f"what {reference!r} names depends on the references before it"
            raise UnsupportedSchemaError(parent.pointer, keyword, reason)
        try:
            resolved = parent.resolver.lookup(reference)
        except (Unresolvable, ValueError, AttributeError, TypeError):  # not even a URI, or nothing like a schema
            raise ConstraintError(
                f"schema{parent.pointer}: {keyword}={reference!r} cannot be resolved within the schema and `documents`"
            ) from None
        if not isinstance(resolved.contents, dict | bool):
            raise ConstraintError(
                f"schema{parent.pointer}: {keyword}={reference!r} must name a schema, not {resolved.contents!r:.80}"
            )
        place = self._place_of(resolved.contents, _steps_of(reference), parent.dialect)
        return self._formula(resolved.contents, resolved.resolver, place)

    def _place_of(self, schema: Any, steps: Sequence[str], dialect: Dialect) -> _Place:
        """Where an object stands, most often at these steps; `dialect` is of what is found nowhere."""
        if (pointer := self._main.pointer_of(schema, steps)) is not None:
            return _Place(pointer, dialect_of(self._schema))
        for address, document in self._documents.items():
            if (pointer := document.pointer_of(schema, steps)) is not None:
                return _Place(f"{address}#{pointer}", dialect_of(document.schema))
        return _Place("", dialect)

    @cached_property
    def _num_anchors(self) -> Counter[str]:
        """How often a name is an anchor that is looked for from outside in; one that is so once names the same."""
        found, left = Counter[str](), [self._main]
        unread = dict(self._documents)
        while left:
            document = left.pop()
            found += document.anchors
            for uri in [uri for uri in unread if any(uri.rpartition("/")[2] in ref for ref in document.references)]:
                left.append(unread.pop(uri))
        return found

    def _formula(self, schema: dict[str, Any] | bool, resolver: Resolver, place: _Place) -> Formula:
        if isinstance(schema, bool):
            return EVERYTHING if schema else NOTHING
        if id(schema) not in self._subschemas:
            self._subschemas[id(schema)] = _subschema(schema, resolver, place)
        found = self._subschemas[id(schema)]
        return found if found.keywords or found.others else EVERYTHING


class _Parsed:
    """A copy of a schema or document, and what is found by looking at all of it."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def pointer_of(self, schema: Any, likely: Sequence[str]) -> str | None:
        """The JSON pointer of an object that stands in here, by identity; None for any other.

        likely: the steps that may lead there; by others all objects are looked at.
        """
        if self._at(likely) is schema:
            return json_pointer(*likely)
        place: int | None = id(schema)
        if place not in self._above:
            return None
        steps: list[str | int] = []
        while place != id(self.schema):
            place, step = self._above[place]
            steps.append(step)
        return json_pointer(*reversed(steps))

    def _at(self, steps: Sequence[str]) -> Any:
        found = self.schema
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        return found

    @cached_property
    def anchors(self) -> Counter[str]:
        """How often each name is a `$dynamicAnchor`; under "$recursiveRef", how many have a `$recursiveAnchor`."""
        names = (node.get("$dynamicAnchor") for node in self._objects)
        found = Counter(name for name in names if isinstance(name, str))
        found["$recursiveRef"] = sum(node.get("$recursiveAnchor") is True for node in self._objects)
        return found

    @cached_property
    def references(self) -> set[str]:
        """All that is referred to."""
        values = (node.get(keyword) for node in self._objects for keyword in ("$ref", "$dynamicRef", "$recursiveRef"))
        return {value for value in values if isinstance(value, str)}

    @cached_property
    def _objects(self) -> list[dict[str, Any]]:
        return [node for node, *_ in _nodes_in(self.schema) if isinstance(node, dict)]

    @cached_property
    def _above(self) -> dict[int, tuple[int, str | int]]:
        """What each object and list stands in, by identity, and at which name or index: few pointers are asked for."""
        return {id(node): (id(outer), step) for node, outer, step in _nodes_in(self.schema)}


class _Library(NamedTuple):
    """Further documents by their addresses, and where references into them are looked up."""

    documents: dict[str, _Parsed]
    registry: Registry[Any]


@lru_cache(maxsize=64)
def _library(texts: tuple[tuple[str, str], ...]) -> _Library:
    """Kept, with the names within its documents, for all schemas that come with them."""
    documents = {address: _Parsed(_read(text)) for address, text in texts}
    registry: Registry[Any] = Registry()
    for address, document in documents.items():
        resource = _specification(dialect_of(document.schema)).create_resource(document.schema)
        try:
            registry = registry.with_resource(address, resource).crawl()
        except (AttributeError, TypeError, ValueError):  # it takes the form of what it meets for granted
            reason = "a keyword that holds schemas, or an $id, has not the form that it must have"
            raise ConstraintError(f"documents[{address!r}] is not valid JSON Schema: {reason}") from None
    return _Library(documents, registry)


def _read(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise ConstraintError(f"schema has {len(text)} characters, more than {MAX_CHARACTERS}")
    return json.loads(text.partition(":")[2])


def _identifier(resource: Resource[Any], pointer: str) -> str | None:
    """The URI that a schema gives itself."""
    try:
        return resource.id()
    except AttributeError:
        raise ConstraintError(f"schema{pointer} is not valid JSON Schema: its $id must be a string") from None


def _specification(dialect: Dialect) -> Specification[Any]:
    return _SPECIFICATIONS.get(dialect.name, DRAFT202012)


def _subschema(schema: dict[str, Any], resolver: Resolver, place: _Place) -> Subschema:
    dialect = place.dialect
    if dialect.ref_stands_alone and "$ref" in schema:
        return Subschema({"$ref": schema["$ref"]}, resolver, place.pointer, dialect)
    keywords = {keyword: value for keyword, value in schema.items() if keyword in dialect.keywords}
    others = {name: value for name, value in schema.items() if name not in keywords and name not in ANNOTATIONS}
    return Subschema(keywords, resolver, place.pointer, dialect, others)


def _steps_of(reference: str) -> list[str]:
    """The steps of a JSON pointer in a reference; none of a name."""
    pointer = unquote(reference.partition("#")[2])
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _nodes_in(schema: Any) -> Iterator[tuple[Any, Any, str | int]]:
    """Every object and list of a schema, itself first, with the one that it stands in and its name or index there."""
    left: list[tuple[Any, Any, str | int]] = [(schema, None, "")]
    while left:
        node, outer, step = left.pop()
        yield node, outer, step
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        left += [(value, node, name) for name, value in items if isinstance(value, dict | list)]

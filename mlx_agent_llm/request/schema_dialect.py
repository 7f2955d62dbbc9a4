"""The dialects of JSON Schema: which keywords each has, where schemas stand within schemas, what is an annotation.

A keyword that a dialect does not have is an annotation, as every dialect says. One that only looks like a slip of a
known one is not: `near_miss` names what was meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Place = tuple[str, str]  # the JSON pointer of a schema, and a keyword there

# Begins the names of keywords that say what JSON Schema cannot: a strict reader refuses each by the rest of its name.
UNSAYABLE = "pydantic:"

_DRAFT_4 = frozenset(
    "type enum multipleOf minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength pattern format items "
    "additionalItems minItems maxItems uniqueItems properties required additionalProperties patternProperties "
    "minProperties maxProperties allOf anyOf oneOf not dependencies $ref".split()
)
DRAFT_3_ALONE = frozenset("divisibleBy extends disallow".split())
_DRAFT_3 = _DRAFT_4 - frozenset("multipleOf minProperties maxProperties allOf anyOf oneOf not".split()) | DRAFT_3_ALONE
_DRAFT_6 = _DRAFT_4 | {"const", "contains", "propertyNames"}
_DRAFT_7 = _DRAFT_6 | {"if", "then", "else"}
_SINCE_2019_09 = frozenset(
    "minContains maxContains dependentRequired dependentSchemas unevaluatedItems unevaluatedProperties".split()
)
_DRAFT_2019_09 = _DRAFT_7 - {"dependencies"} | _SINCE_2019_09 | {"$recursiveRef"}
_DRAFT_2020_12 = _DRAFT_7 - {"dependencies", "additionalItems"} | _SINCE_2019_09 | {"prefixItems", "$dynamicRef"}
# `discriminator` is OpenAPI's: values of a oneOf are told apart by that property.
_DRAFT_2020_12 |= {"discriminator"}
_EVERY = _DRAFT_2019_09 | _DRAFT_2020_12 | {"dependencies", "nullable"}

# They say nothing about a value, or only name schemas; the last line is OpenAPI's.
ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly contentMediaType contentEncoding contentSchema "
    "$comment $schema $id id $anchor $dynamicAnchor $recursiveAnchor $vocabulary $defs definitions "
    "discriminator example externalDocs xml".split()
)


@dataclass(frozen=True)
class Dialect:
    """One dialect.

    keywords: those that say something about a value. ref_stands_alone: whether what stands beside a `$ref` means
    nothing. bounds: what `exclusiveMinimum` is, a boolean beside `minimum`, a number of its own, or either. has_lists:
    whether `items` may be a list of schemas. is_known: False where `$schema` names something else.
    """

    name: str
    keywords: frozenset[str]
    ref_stands_alone: bool = False
    bounds: tuple[type, ...] = (int, float)
    has_lists: bool = True
    is_known: bool = True


DRAFT_2020_12 = Dialect("2020-12", _DRAFT_2020_12, has_lists=False)
UNKNOWN = Dialect("2020-12", _DRAFT_2020_12, has_lists=False, is_known=False)
# What does not say its dialect: 2020-12, with the forms of older drafts and of OpenAPI 3.0 where they are met.
SILENT = Dialect("silent", _EVERY, bounds=(bool, int, float))
DIALECTS = {
    "json-schema.org/draft/2020-12/schema": DRAFT_2020_12,
    "json-schema.org/schema": DRAFT_2020_12,
    "spec.openapis.org/oas/3.1/dialect/base": DRAFT_2020_12,
    "json-schema.org/draft/2019-09/schema": Dialect("2019-09", _DRAFT_2019_09),
    "json-schema.org/draft-07/schema": Dialect("draft-07", _DRAFT_7, ref_stands_alone=True),
    "json-schema.org/draft-06/schema": Dialect("draft-06", _DRAFT_6, ref_stands_alone=True),
    "json-schema.org/draft-04/schema": Dialect("draft-04", _DRAFT_4, ref_stands_alone=True, bounds=(bool,)),
    "json-schema.org/draft-03/schema": Dialect("draft-03", _DRAFT_3, ref_stands_alone=True, bounds=(bool,)),
}

FORMATS = frozenset(
    "base64 base64url binary byte date date-time directory-path double duration email file-path float hostname "
    "idn-email idn-hostname int8 int16 int32 int64 ipv4 ipv4interface ipv4network ipv6 ipv6interface ipv6network "
    "ipvanyaddress ipvanyinterface ipvanynetwork iri iri-reference json-pointer password path relative-json-pointer "
    "time uint8 uint16 uint32 uint64 uri uri-reference uri-template uuid uuid1 uuid2 uuid3 uuid4 uuid5 uuid6 uuid7 "
    "uuid8".split()
)

_SCHEMA_AT = frozenset(
    "not if then else contains propertyNames additionalProperties additionalItems unevaluatedItems "
    "unevaluatedProperties items".split()
)
_SCHEMAS_IN = frozenset(
    "allOf anyOf oneOf prefixItems items properties patternProperties dependentSchemas dependencies $defs "
    "definitions".split()
)


def dialect_of(schema: Any) -> Dialect:
    """The dialect that `$schema` names; 2020-12 where it names another, and SILENT where there is no `$schema`."""
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if name is None:
        return SILENT
    address = str(name).removesuffix("#").removeprefix("https://").removeprefix("http://")
    return DIALECTS.get(address, UNKNOWN)


@lru_cache(maxsize=1024)  # the same few unknown keywords stand all over a schema
def near_miss(keyword: str, dialect: Dialect) -> str | None:
    """The keyword that was meant by one that no dialect has: another case, or a few letters more, less or swapped."""
    if keyword in _EVERY or keyword in DRAFT_3_ALONE or keyword in ANNOTATIONS or keyword.startswith(("x-", "$")):
        return None
    plain, letters = _plain(keyword), set(_plain(keyword))
    distances = {
        known: _distance(plain, _plain(known))
        for known, of_known in _letters_of(dialect)
        if abs(len(plain) - len(known)) <= _most_slips(known)
        and max(len(letters - of_known), len(of_known - letters)) <= _most_slips(known)  # a slip changes one letter
    }
    near = [known for known, distance in distances.items() if distance <= _most_slips(known)]
    return min(near, key=distances.__getitem__, default=None)


@lru_cache(maxsize=16)
def _letters_of(dialect: Dialect) -> list[tuple[str, frozenset[str]]]:
    return [(known, frozenset(_plain(known))) for known in sorted(dialect.keywords)]


def ignored_keywords(schema: Any) -> tuple[Place, ...]:
    """What stands in a schema and enforces nothing: keywords that its dialect does not have, and unknown formats."""
    dialect = dialect_of(schema)
    found: dict[Place, None] = {} if dialect.is_known else {("", "$schema"): None}
    for place, pointer in schemas_in(schema):
        for keyword, value in place.items():
            is_format = keyword == "format" and keyword in dialect.keywords
            is_known = value in FORMATS if is_format and isinstance(value, str) else keyword in dialect.keywords
            if not is_known and keyword not in ANNOTATIONS and not keyword.startswith(UNSAYABLE):
                found[pointer, keyword] = None
    return tuple(found)


def schemas_in(schema: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object of a schema that is a schema itself, with its JSON pointer."""
    left: list[tuple[Any, str]] = [(schema, "")]
    while left:
        node, pointer = left.pop()
        if not isinstance(node, dict):
            continue
        yield node, pointer
        inner: list[tuple[Any, str]] = []
        for keyword, value in node.items():
            place = pointer + json_pointer(keyword)
            if keyword in _SCHEMA_AT and isinstance(value, dict):
                inner.append((value, place))
            elif keyword in _SCHEMAS_IN and isinstance(value, dict):
                inner += [(one, place + json_pointer(name)) for name, one in value.items()]
            elif keyword in _SCHEMAS_IN and isinstance(value, list):
                inner += [(one, place + json_pointer(index)) for index, one in enumerate(value)]
        left += reversed(inner)


def json_pointer(*steps: str | int) -> str:
    """The JSON pointer of these steps, '' for none."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _most_slips(known: str) -> int:
    """One letter in short words, two or three in long ones."""
    return min(3, max(len(known) // 6, len(known) >= 4))


def _plain(keyword: str) -> str:
    return keyword.replace("_", "").replace("-", "").casefold()


def _distance(one: str, other: str) -> int:
    """Letters to add, take out, change or swap with the next one (the optimal string alignment distance)."""
    rows = [list(range(len(other) + 1))]
    for i, char in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (char != wanted))
            if i > 1 and j > 1 and (char, one[i - 2]) == (other[j - 2], wanted):
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]

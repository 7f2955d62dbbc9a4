"""The JSON-Schema-Test-Suite: its required tests as data, and instances written as a grammar would write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "data" / "json_schema_test_suite"
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft4": "http://json-schema.org/draft-04/schema#",
}
MAX_TEXTS = 2000


class Case(NamedTuple):
    """One schema of the suite, with instances that are valid and instances that are not."""

    draft: str
    keyword: str
    description: str
    schema: dict[str, Any] | bool
    valid: list[Any]
    invalid: list[Any]


def load_cases(draft: str) -> Iterator[Case]:
    """Yield the schemas of a draft; one that does not say its dialect gets the draft's."""
    for path in sorted((FOLDER / draft).glob("*.json")):
        for case in json.loads(path.read_text()):
            schema = case["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DRAFTS[draft]} | schema
            instances: dict[bool, list[Any]] = {True: [], False: []}
            for test in case["tests"]:
                instances[test["valid"]].append(test["data"])
            yield Case(draft, path.stem, case["description"], schema, instances[True], instances[False])


def load_remotes(draft: str) -> dict[str, Any]:
    """The documents that references of a draft's schemas name; one that does not say its dialect gets the draft's."""
    folder = FOLDER / "remotes"
    drafts = {name: path for name, path in ((path.name, path) for path in folder.iterdir()) if name.startswith("draft")}
    documents = {}
    for path in sorted(folder.rglob("*.json")):
        address = path.relative_to(folder)
        if address.parts[0] not in drafts or address.parts[0] == draft:
            schema = json.loads(path.read_text())
            schema = {"$schema": DRAFTS[draft]} | schema if isinstance(schema, dict) else schema
            documents[f"http://localhost:1234/{address.as_posix()}"] = schema
    return documents


def texts_of(value: Any) -> Iterator[str]:
    """Yield the texts of a value with the grammars' separators: properties in every order, 1 also as 1.0."""
    return islice(_texts_of(value), MAX_TEXTS)


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for order in permutations(value):
            for values in product(*(list(texts_of(value[name])) for name in order)):
                members = (f"{write(name)}: {text}" for name, text in zip(order, values, strict=True))
                yield f"{{{', '.join(members)}}}"
    elif isinstance(value, list):
        for values in product(*(list(texts_of(item)) for item in value)):
            yield f"[{', '.join(values)}]"
    else:
        yield write(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            yield from {str(int(value)), f"{int(value)}.0"} - {write(value)}


def write(value: Any) -> str:
    """Return a value as the grammars write it."""
    return json.dumps(value, ensure_ascii=False)

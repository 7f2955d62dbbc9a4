"""Further schemas that the references of a schema may name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.request.content_key import kept_key

Documents = Mapping[str, dict[str, Any] | bool]


class SchemaDocuments(Documents):
    """Schemas by their URIs, read once for all schemas that come with them: nobody changes them from here on.

    keys_by_uri: their content, as `content_key` writes it. ConstraintError for what is no schema or no URI.
    """

    def __init__(self, documents: Documents) -> None:
        if not isinstance(documents, Mapping):
            raise ConstraintError(f"documents={documents!r:.80} must be schemas by their URIs")
        for uri, schema in documents.items():
            if not isinstance(uri, str) or not uri or not isinstance(schema, dict | bool):
                raise ConstraintError(f"documents[{uri!r}]={schema!r:.80} must be a JSON Schema, its URI a text")
        self._documents = dict(documents)
        self.keys_by_uri = tuple((uri, kept_key("document", schema)) for uri, schema in self._documents.items())

    @staticmethod
    def of(documents: Documents) -> SchemaDocuments:
        """The documents; what was read already stays as it is."""
        return documents if isinstance(documents, SchemaDocuments) else SchemaDocuments(documents)

    def digests(self) -> dict[str, str]:
        """A short text by URI, equal for equal documents."""
        return {uri: _digest(key) for uri, key in self.keys_by_uri}

    def __getitem__(self, uri: str) -> dict[str, Any] | bool:
        return self._documents[uri]

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __hash__(self) -> int:
        return hash(frozenset(self._documents))

    def __repr__(self) -> str:
        return repr(self._documents)


@lru_cache(maxsize=64)
def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


NO_DOCUMENTS = SchemaDocuments({})

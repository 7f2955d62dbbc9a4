"""What may be asked of the sampler, as values: no grammar library is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.request.content_key import content_key
from mlx_agent_llm.request.model_schema import is_schema_type, schema_of_type
from mlx_agent_llm.request.schema_dialect import Place, ignored_keywords
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, Documents, SchemaDocuments

SEPARATORS = (", ", ": ")  # as Python's json writes

# (pointer, keyword) of what a grammar leaves out, so that a value is checked for it.
CheckedKeywords = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Constraint:
    """The base of every constraint; constraints of equal `key` are equal and share one compiled grammar."""

    key: str = field(init=False, repr=False)


@dataclass(frozen=True)
class JSONSchema(Constraint):
    """The output is one JSON value that is valid for `schema`: a JSON Schema dict, or a class that pydantic reads.

    Such a class is a pydantic model, a TypedDict or a dataclass.
    A schema that cannot be enforced exactly is an UnsupportedSchemaError when the request is made. Within what the
    schema allows, the output is written in one form: separators ", " and ": ", properties in declared order, and
    no properties that an object with declared ones does not declare.

    strict=False: keywords that cannot be enforced are left out of the grammar and checked when the value is complete,
    which is not guaranteed: a value that fails is sampled again with another seed, at most twice and at a temperature
    above 0, and then the request fails with an InvalidOutputError. A stream shows nothing before the value was checked.
    RequestOutput.checked names those keywords.

    documents: further schemas by their URIs, which references in the schema may name. separators: what stands between
    items, and between a name and its value; with (",", ":") the output is compact.
    """

    schema: dict[str, Any] | type[Any] = field(compare=False)
    strict: bool = True
    documents: Documents = field(default=NO_DOCUMENTS, compare=False)
    separators: tuple[str, str] = SEPARATORS
    json_schema: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        schema = self.schema
        if isinstance(schema, type) and is_schema_type(schema):
            schema = schema_of_type(schema)
        if not isinstance(schema, dict):
            raise ConstraintError(
                f"schema={schema!r} must be a JSON Schema dict, a pydantic model class, a TypedDict or a dataclass"
            )
        if not isinstance(self.strict, bool):
            raise ConstraintError(f"strict={self.strict!r} must be True or False")
        object.__setattr__(self, "json_schema", schema)
        object.__setattr__(self, "documents", documents := SchemaDocuments.of(self.documents))
        object.__setattr__(self, "separators", _checked_separators(self.separators))
        content = [schema, documents.digests(), self.separators]
        object.__setattr__(self, "key", content_key("json_schema" if self.strict else "checked_json_schema", content))

    @property
    def ignored_keywords(self) -> tuple[Place, ...]:
        """The (pointer, keyword) pairs of what enforces nothing: keywords that the dialect has not, unknown formats."""
        return ignored_keywords(self.json_schema)


@dataclass(frozen=True)
class Regex(Constraint):
    """The whole output matches `pattern`, an ECMA-262 regular expression: `a|b` allows "a" and "b" and nothing else.

    Lookaround, backreferences and word boundaries are a ConstraintError when the request is made, with the position.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_is_text("pattern", self.pattern)
        object.__setattr__(self, "key", content_key("regex", self.pattern))


@dataclass(frozen=True)
class Grammar(Constraint):
    """The output is a text of a context-free grammar in EBNF, from its rule `root` on.

    Rules are `name ::= expression`; an expression has "text", [classes], names, groups, `|`, `*`, `+`, `?` and
    `{m,n}`, as xgrammar and llama.cpp write them, and `#` begins a comment. No rule may begin with itself. An error is
    a ConstraintError when the request is made, with its line.
    """

    ebnf: str

    def __post_init__(self) -> None:
        _check_is_text("ebnf", self.ebnf)
        object.__setattr__(self, "key", content_key("grammar", self.ebnf))


@dataclass(frozen=True)
class Choice(Constraint):
    """The output is one of these texts, which are distinct and not empty."""

    texts: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not isinstance(self.texts, Sequence) or not self.texts:
            raise ConstraintError(f"texts={self.texts!r} must be a sequence of at least one text")
        for index, text in enumerate(self.texts):
            _check_is_text(f"texts[{index}]", text)
        if len(set(self.texts)) < len(self.texts):
            raise ConstraintError(f"texts={self.texts!r} must be distinct")
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "key", content_key("choice", self.texts))


def _checked_separators(separators: Any) -> tuple[str, str]:
    is_pair = isinstance(separators, Sequence) and len(separators) == 2 and all(isinstance(s, str) for s in separators)
    if not is_pair or [separator.strip(" \t\n\r") for separator in separators] != [",", ":"]:
        raise ConstraintError(f"separators={separators!r} must be a comma and a colon, with blanks around or without")
    return separators[0], separators[1]


def _check_is_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConstraintError(f"{name}={value!r} must be a text that is not empty")

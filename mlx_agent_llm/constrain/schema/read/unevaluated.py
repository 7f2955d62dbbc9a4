"""`unevaluatedProperties` and `unevaluatedItems`: what no keyword beside them has spoken of.

What was spoken of depends on which branches of anyOf, oneOf and if a value takes. So the schema becomes a union with
one alternative for each way to take them. The branches that an alternative does not take may hold all the same: then
more was spoken of, and the alternative asks for no less than the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

from mlx_agent_llm.constrain.schema.read.applicators import branches_of, exclusive_branches
from mlx_agent_llm.constrain.schema.read.containers import (
    patterns_of,
    required,
    rest_of_items,
    rest_of_properties,
    without,
)
from mlx_agent_llm.constrain.schema.read.document import Subschema
from mlx_agent_llm.constrain.schema.read.keywords import check_form
from mlx_agent_llm.constrain.schema.read.reader import SchemaReader
from mlx_agent_llm.constrain.schema.values.formula import EVERYTHING, Formula, all_of, any_of, negation
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE, Typed, TypeSet
from mlx_agent_llm.errors import UnsupportedSchemaError
from mlx_agent_llm.languages.regular import ANY_TEXT, Language, literal, union
from mlx_agent_llm.languages.regular import NOTHING as NO_TEXT

KEYWORDS = ("unevaluatedItems", "unevaluatedProperties")
MAX_ALTERNATIVES = 200
_OBJECTS = Typed(TypeSet(objects=EVERY_TYPE.objects))
_APPLICATORS = frozenset("$ref $dynamicRef $recursiveRef allOf anyOf oneOf not if then else dependentSchemas".split())


@dataclass(frozen=True)
class Alternative:
    """One way for a value to be valid, and what was spoken of on that way.

    names: of properties. num_items: the first items. items: formulas; an item in one of them was spoken of.
    """

    formula: Formula = EVERYTHING
    names: Language = NO_TEXT
    num_items: int = 0
    items: tuple[Formula, ...] = ()

    def joined(self, other: Alternative) -> Alternative:
        """The way that takes both."""
        return Alternative(
            all_of(self.formula, other.formula),
            union(self.names, other.names),
            max(self.num_items, other.num_items),
            tuple(dict.fromkeys(self.items + other.items)),
        )


def read_unevaluated(reader: SchemaReader, subschema: Subschema) -> Formula:
    """The formula of a schema with one of these keywords, the keywords beside it included."""
    return any_of(*(alternative.formula for alternative in _Alternatives(reader).of(subschema)))


class _Alternatives:
    def __init__(self, reader: SchemaReader) -> None:
        self._reader = reader
        self._document = reader.document
        self._open: list[Subschema] = []

    def of(self, formula: Formula) -> list[Alternative]:
        """All ways to be valid for a schema."""
        if not isinstance(formula, Subschema):
            return [Alternative(formula)]
        if formula in self._open:  # a circle, which the reader refuses as soon as it expands it
            return [Alternative(formula)]
        check_form(formula)
        self._open.append(formula)
        alternatives = [_local(self._reader, formula)]
        for choices in self._choices(formula):
            if len(alternatives) * len(choices) > MAX_ALTERNATIVES:
                keyword = next(keyword for keyword in KEYWORDS if keyword in self._open[0].keywords)
                raise UnsupportedSchemaError(self._open[0].pointer, keyword, "there are too many ways to be valid")
            alternatives = [one.joined(other) for one, other in product(alternatives, choices)]
        self._open.pop()
        return [self._closed(formula, alternative) for alternative in alternatives]

    def _choices(self, subschema: Subschema) -> Iterator[list[Alternative]]:
        """The alternatives of each keyword that combines schemas."""
        keywords, child = subschema.keywords, self._document.child
        for reference in [name for name in ("$ref", "$dynamicRef", "$recursiveRef") if name in keywords]:
            yield self.of(self._document.follow(subschema, reference))
        for formula in branches_of(self._reader, subschema, "allOf") if "allOf" in keywords else ():
            yield self.of(formula)
        if "anyOf" in keywords:
            yield self._any_of(branches_of(self._reader, subschema, "anyOf"))
        if "oneOf" in keywords:
            yield self._one_of(subschema)
        if "not" in keywords:
            yield [Alternative(negation(child(subschema, "not")))]
        if "if" in keywords:
            condition = child(subschema, "if")
            then = self.of(child(subschema, "then")) if "then" in keywords else [Alternative()]
            otherwise = self.of(child(subschema, "else")) if "else" in keywords else [Alternative()]
            taken = [one.joined(other) for one, other in product(self.of(condition), then)]
            yield taken + [Alternative(negation(condition)).joined(other) for other in otherwise]
        for name in keywords.get("dependentSchemas", ()):
            present = Alternative(all_of(_OBJECTS, required([name], subschema.pointer)))
            ways = self.of(child(subschema, "dependentSchemas", name))
            yield [Alternative(without(name, subschema.pointer)), *(present.joined(way) for way in ways)]

    def _any_of(self, branches: list[Formula]) -> list[Alternative]:
        """The ways to take one branch or several; taking more is of use only where they speak of something."""
        ways = [self.of(branch) for branch in branches]
        speaking = [way for way in ways if any(one != Alternative(one.formula) for one in way)]
        result = [one for way in ways for one in way]
        for count in range(2, len(speaking) + 1):
            for chosen in combinations(speaking, count):
                for parts in product(*chosen):
                    joined = parts[0]
                    for part in parts[1:]:
                        joined = joined.joined(part)
                    result.append(joined)
                    if len(result) > MAX_ALTERNATIVES:
                        return result  # the caller counts them, and refuses
        return result

    def _one_of(self, subschema: Subschema) -> list[Alternative]:
        branches = branches_of(self._reader, subschema, "oneOf")
        exclusive = exclusive_branches(self._reader, subschema)
        return [
            Alternative(formula).joined(way)
            for branch, formula in zip(branches, exclusive, strict=True)
            for way in self.of(branch)
        ]

    def _closed(self, subschema: Subschema, alternative: Alternative) -> Alternative:
        """Apply the schema's own unevaluated keywords, after which nothing is left to be spoken of."""
        if "unevaluatedProperties" in subschema.keywords:
            rest = self._document.child(subschema, "unevaluatedProperties")
            rule = rest_of_properties(alternative.names, rest, subschema.pointer)
            alternative = alternative.joined(Alternative(rule, names=ANY_TEXT))
        if "unevaluatedItems" in subschema.keywords:
            rest = any_of(self._document.child(subschema, "unevaluatedItems"), *alternative.items)
            rule = rest_of_items(alternative.num_items, rest, subschema.pointer)
            alternative = alternative.joined(Alternative(rule, items=(EVERYTHING,)))
        return alternative


def _local(reader: SchemaReader, subschema: Subschema) -> Alternative:
    """What the keywords say that neither combine schemas nor are unevaluated ones."""
    keywords = subschema.keywords
    local = {key: value for key, value in keywords.items() if key not in _APPLICATORS and key not in KEYWORDS}
    formula: Formula = reader.document.part(subschema, local)
    names = [literal(name) for name in keywords.get("properties", ())] + list(patterns_of(subschema).values())
    items: list[Formula] = [reader.document.child(subschema, "contains")] if "contains" in keywords else []
    prefix = keywords.get("prefixItems", keywords.get("items", ()))
    is_list = isinstance(keywords.get("items"), list)
    if "additionalItems" in keywords if is_list else "items" in keywords:
        items.append(EVERYTHING)
    return Alternative(
        formula,
        ANY_TEXT if "additionalProperties" in keywords else union(*names),
        len(prefix) if isinstance(prefix, list) else 0,
        tuple(items),
    )

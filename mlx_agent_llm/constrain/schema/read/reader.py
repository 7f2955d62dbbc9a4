"""Formulas expanded into canonical types: the meaning of every keyword of JSON Schema.

Keywords beside each other are a conjunction, and each is one formula or one type. Nothing inside a value is expanded
here, so recursion ends; a `$ref` that leads back to itself without a value in between has no meaning and is refused.

What cannot be expressed goes through one door, `refuse`. A strict reader raises; a lenient one replaces the keyword by
all values where more is allowed, and by none where the formula is about to be complemented. So what it reads is never
smaller than the schema, and the rest of the schema stays enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from mlx_agent_llm.constrain.schema.read.document import Document, Subschema
from mlx_agent_llm.constrain.schema.read.keywords import check_form, check_texts, misread_keywords
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType
from mlx_agent_llm.constrain.schema.values.formula import (
    AllOf,
    AnyOf,
    Formula,
    Narrowed,
    Not,
    TooManyPartsError,
    Widest,
    all_of,
    negation,
)
from mlx_agent_llm.constrain.schema.values.object_type import ObjectType
from mlx_agent_llm.constrain.schema.values.types import (
    EVERY_TYPE,
    NO_TYPE,
    Typed,
    TypeSet,
    complement_of_type,
    intersection_of_types,
    union_of_types,
)
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError
from mlx_agent_llm.languages.regular import nothing

MAX_EXPANSIONS = 10_000
Answer = TypeVar("Answer")


class _UndecidedError(Exception):
    """Whether a formula is empty depends on a formula that is being expanded."""


ReadKeyword = Callable[["SchemaReader", Subschema], Formula]


class SchemaReader:
    """Expands the formulas of one schema document, each once.

    vocabulary: for each keyword that means something, what reads it of a subschema; keywords are applied in its order.
    checked: the (pointer, keyword) pairs that a lenient reader came upon and does not enforce. is_strict: whether it
    raises instead.
    """

    def __init__(self, document: Document, vocabulary: Mapping[str, ReadKeyword], strict: bool) -> None:
        self.document = document
        self._vocabulary = vocabulary
        self._places = {keyword: place for place, keyword in enumerate(vocabulary)}
        self.root = self.document.root()
        self.checked: dict[tuple[str, str], None] = {}
        self.is_strict = strict
        self._types: dict[tuple[Formula, bool], TypeSet] = {}
        self._expanding: dict[tuple[Formula, bool], int] = {}  # what is being expanded, for which question
        self._question = 0
        self._empty: dict[Formula, bool] = {}
        self._num_expansions = 0

    def types(self, formula: Formula, upper: bool = True) -> TypeSet:
        """The canonical types of a formula that values are written of; with upper=False what a complement is taken of.

        Then what is refused counts as no value, and of a narrowed set all that may lie in it.
        """
        key = formula, upper
        if key not in self._types:
            if key in self._expanding:
                self._refuse_circle(formula, self._expanding[key])
            self._expanding[key] = self._question
            try:
                self._types[key] = self._expand(formula, key[1])
            except TooManyPartsError:
                if len(self._expanding) > 1:
                    raise  # the keyword that asks for this formula is to blame
                self.refuse(_pointer_of(formula), "allOf", "together they make too many cases")
                self._types[key] = EVERY_TYPE
            finally:
                del self._expanding[key]
        return self._types[key]

    def is_surely_empty(self, formula: Formula) -> bool:
        """Whether it is cheap to see that no value is in a formula; False says nothing."""
        if formula not in self._empty:
            self._empty[formula] = False  # the answer where the question leads back to itself
            is_empty = self.ask(lambda: self._without_empty(self.types(formula)) == NO_TYPE)
            if is_empty is None:
                del self._empty[formula]
                return False
            self._empty[formula] = is_empty
        return self._empty[formula]

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer to a question about formulas, None where it is not cheap to find.

        It may lead back to a formula that is being expanded, which what a schema says may not.
        """
        self._question += 1
        try:
            return question()
        except (_UndecidedError, TooManyPartsError):
            return None
        finally:
            self._question -= 1

    def refuse(self, pointer: str, keyword: str, reason: str) -> None:
        """Raise, or in a lenient reader note that the keyword is only checked afterwards."""
        if self.is_strict:
            raise UnsupportedSchemaError(pointer, keyword, reason)
        self.checked[pointer, keyword] = None

    def contradiction(self) -> str | None:
        """The pointer of the innermost schema that was read and plainly holds no value."""
        read = [self.root, *(formula for formula, _ in self._types)]
        empty = [formula for formula in read if self.is_surely_empty(formula)]
        pointers = [formula.pointer if isinstance(formula, Subschema) else "" for formula in empty]
        return max(pointers, key=len, default=None)

    def _refuse_circle(self, formula: Formula, question: int) -> None:
        if question < self._question:
            raise _UndecidedError
        raise ConstraintError(f"schema{_pointer_of(formula)}: a $ref leads back here without a value in between")

    def _expand(self, formula: Formula, upper: bool) -> TypeSet:
        self._num_expansions += 1
        if self._num_expansions > MAX_EXPANSIONS:
            raise ConstraintError(f"schema is too large: it expands to more than {MAX_EXPANSIONS} subschemas")
        match formula:
            case Typed():
                return formula.types
            case Not():
                if (branches := self._branches(formula.part)) is not None:
                    return self.types(all_of(*map(negation, branches)), upper)
                return complement_of_type(self.types(formula.part, not upper))
            case AnyOf():
                return union_of_types([self.types(part, upper) for part in formula.parts])
            case AllOf():
                result = EVERY_TYPE
                for part in formula.parts:
                    result = self._without_empty(intersection_of_types(result, self.types(part, upper)), several=True)
                return result
            case Narrowed():
                return self.types(formula.narrow if upper else formula.wide, upper)
            case Widest():
                return self.types(formula.part, not upper)
        assert isinstance(formula, Subschema), "there are no other leaves"
        return self._expand_subschema(formula, upper)

    def _branches(self, formula: Formula) -> tuple[Formula, ...] | None:
        """The branches of an anyOf that stands alone: the complement of each is smaller than that of all."""
        if isinstance(formula, AnyOf):
            return formula.parts
        if not isinstance(formula, Subschema) or [*formula.keywords] != ["anyOf"] or formula.others:
            return None
        check_form(formula)
        branches = self._vocabulary["anyOf"](self, formula)
        return branches.parts if isinstance(branches, AnyOf) else (branches,)

    def _expand_subschema(self, subschema: Subschema, upper: bool) -> TypeSet:
        check_form(subschema)
        result = EVERY_TYPE
        for error in misread_keywords(subschema):
            result = intersection_of_types(result, self._unsupported(error, upper))
        for keyword in sorted(subschema.keywords.keys() & self._places, key=self._places.__getitem__):
            try:
                check_texts(subschema, keyword)
                types = self.types(self._vocabulary[keyword](self, subschema), upper)
                result = self._without_empty(intersection_of_types(result, types), several=True)
            except TooManyPartsError:
                error = UnsupportedSchemaError(subschema.pointer, keyword, "with the rest it makes too many cases")
                result = intersection_of_types(result, self._unsupported(error, upper))
            except UnsupportedSchemaError as error:
                result = intersection_of_types(result, self._unsupported(error, upper))
        return result

    def _unsupported(self, error: UnsupportedSchemaError, upper: bool) -> TypeSet:
        self.refuse(error.pointer, error.keyword, error.reason)
        return EVERY_TYPE if upper else NO_TYPE

    def _without_empty(self, types: TypeSet, several: bool = False) -> TypeSet:
        """The set without parts that are surely empty; with `several` only where there are several of them."""
        if several and len(types.arrays) < 2 and len(types.objects) < 2:
            return types
        arrays = tuple(part for part in types.arrays if not self._is_surely_empty_array(part))
        objects = tuple(part for part in types.objects if not self._is_surely_empty_object(part))
        strings = types.strings if several or not types.strings.is_empty() else nothing()
        return replace(types, strings=strings, arrays=arrays, objects=objects)

    def _is_surely_empty_array(self, arrays: ArrayType) -> bool:
        needed = [arrays.item(index) for index in range(min(arrays.least, len(arrays.prefix) + 1))]
        for part in arrays.contains:
            if part.least and part.start >= len(arrays.prefix):
                needed.append(all_of(arrays.items, part.formula))
        return any(map(self.is_surely_empty, needed))

    def _is_surely_empty_object(self, objects: ObjectType) -> bool:
        return any(name in objects.required and self.is_surely_empty(formula) for name, formula in objects.named)


def _pointer_of(formula: Formula) -> str:
    """The pointer of a schema that the formula speaks of."""
    match formula:
        case Subschema():
            return formula.pointer
        case Not() | Widest():
            return _pointer_of(formula.part)
        case Narrowed():
            return _pointer_of(formula.wide)
        case AllOf() | AnyOf():
            return max(map(_pointer_of, formula.parts), key=len, default="")
    return ""

"""The arguments of a call as grammar, in notations other than JSON: the same canonical types, written differently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import NoReturn

from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.values.number_type import NumberType
from mlx_agent_llm.constrain.schema.values.types import NO_TYPE, Typed, TypeSet
from mlx_agent_llm.constrain.schema.write.notation import JSON, JSONNotation
from mlx_agent_llm.constrain.schema.write.number_text import InexactNumberError, language_of_numbers
from mlx_agent_llm.constrain.schema.write.object_writer import write_object
from mlx_agent_llm.constrain.schema.write.string_text import quoted
from mlx_agent_llm.constrain.schema.write.value_writer import ValueWriter
from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.context_free import Node, PatternNode, TextNode, choice, sequence
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.languages.regular import (
    ANY_TEXT,
    Language,
    complement,
    concat,
    intersection,
    literal,
    nothing,
    union,
    without,
)

FREE_NAME = parse_full_match(r"[^\u0000-\u0020\u007f-\u00a0<>\"'=:,{}\[\]()|]+")  # what no notation needs for itself
_IDENTIFIER = parse_full_match("[A-Za-z_][A-Za-z0-9_]*")
_UNESCAPED = parse_full_match(r"[^'\\\u0000-\u001f]*")
_STRUCTURES = concat(parse_full_match(r"[ \t\n\r]*[{\[]"), ANY_TEXT)


class _MembersNotation(JSONNotation):
    """Members of the outermost object; `names` are those that can be written."""

    shared = "arguments_"

    def __init__(self, names: Language, before: str, after: str, separator: str, close: str) -> None:
        self._names = names
        self._before, self._after = before, after
        self.open, self.close = TextNode(""), TextNode(close)
        self.separator, self.colon = TextNode(separator), TextNode("")

    def name(self, name: str) -> Node:
        """The name with what stands around it."""
        if not self._names.matches(name):
            refuse_name(name)
        return TextNode(self._before + name + self._after)

    def names(self, language: Language) -> Node:
        """Names that can be written; others are left out."""
        written = intersection(language, self._names)
        return PatternNode(concat(literal(self._before), written, literal(self._after)))

    def any_name(self) -> Node:
        """All names that can be written."""
        return self.names(ANY_TEXT)


def write_members(
    writer: ValueWriter, formula: Formula, notation: JSONNotation, value: Callable[[Formula], Node]
) -> Node:
    """The node of an outermost object."""
    outer = replace(writer, notation=notation, value=value)
    return choice(write_object(outer, objects) for objects in writer.reader.types(formula).objects)


def _in_quotes(language: Language) -> Language:
    """Texts between double quotes with JSON's escapes, or between single ones where nothing has to be escaped."""
    return union(quoted(language), concat(literal("'"), intersection(language, _UNESCAPED), literal("'")))


class TaggedNotation:
    """Parameters between tags: texts as they are, without the tag that ends them, and everything else as values.

    constants: those of Python that may be written too.
    """

    def __init__(self, tags: Tags, end: str, constants: Collection[str] = ()) -> None:
        between = "" if tags.kinds else tags.name_end + tags.value_begin + tags.padding
        self._tags = tags
        self._members = _MembersNotation(FREE_NAME, tags.begin, between, "", end)
        self._value_end = tags.padding + tags.value_end + tags.after
        self._tag = tags.value_end
        self._constants = constants

    def whole(self, writer: ValueWriter, formula: Formula) -> Node:
        """The node of all parameters."""
        return write_members(writer, formula, self._members, lambda value: self._value(writer, value))

    def _value(self, writer: ValueWriter, formula: Formula) -> Node:
        types = writer.reader.types(formula)
        if self._tags.kinds:
            return choice(self._of_kinds(writer, types))
        structures = [writer.value(Typed(TypeSet(arrays=(part,)))) for part in types.arrays]
        structures += [writer.value(Typed(TypeSet(objects=(part,)))) for part in types.objects]
        scalars = language_of_scalars(writer, formula, self._constants)
        texts = intersection(types.strings, without(self._tag))
        if structures:  # what begins like one is one
            texts = intersection(texts, complement(_STRUCTURES))
        leaf = PatternNode(concat(union(scalars, texts), literal(self._value_end)))
        return choice([leaf, *(sequence(node, TextNode(self._value_end)) for node in structures)])

    def _of_kinds(self, writer: ValueWriter, types: TypeSet) -> Iterator[Node]:
        """A value of each type that it can have, after what says which it is."""
        texts = PatternNode(concat(intersection(types.strings, without(self._tag)), literal(self._value_end)))
        if not types.strings.is_empty():
            yield sequence(self._lead("string"), texts)
        others = {
            "number": TypeSet(numbers=types.numbers),
            "boolean": TypeSet(booleans=types.booleans),
            "null": TypeSet(null=types.null),
            "array": TypeSet(arrays=types.arrays),
            "object": TypeSet(objects=types.objects),
        }
        for kind, part in others.items():
            if part != NO_TYPE:
                yield sequence(self._lead(kind), writer.value(Typed(part)), TextNode(self._value_end))

    def _lead(self, kind: str) -> TextNode:
        return TextNode(self._tags.lead(kind) + self._tags.padding)


class PythonNotation(JSONNotation):
    """Python's literals, and keyword arguments around them.

    Texts have JSON's escapes, each character in one form; those without escapes may stand between single quotes.
    """

    shared = "python_"
    all_strings = _in_quotes(ANY_TEXT)

    def __init__(self, end: str) -> None:
        self._members = _MembersNotation(_IDENTIFIER, "", "=", ", ", end)

    def whole(self, writer: ValueWriter, formula: Formula) -> Node:
        """The node of the keyword arguments, from the parenthesis on."""
        return sequence(TextNode("("), write_members(writer, formula, self._members, writer.value))

    def constant(self, value: bool | int | float | None) -> Node:
        """True, False and None as Python writes them."""
        return TextNode(str(value)) if value is None or isinstance(value, bool) else JSON.constant(value)

    def string(self, language: Language) -> Node:
        """The texts, each between quotes of either kind."""
        return self.rule("string") if language is ANY_TEXT else PatternNode(_in_quotes(language))

    def name(self, name: str) -> Node:
        """The name between quotes of either kind."""
        return PatternNode(_in_quotes(literal(name)))

    def names(self, language: Language) -> Node:
        """The names between quotes of either kind."""
        return PatternNode(_in_quotes(language))


class QuotedNotation(JSONNotation):
    """Gemma's notation: texts between two quotes, in which nothing is escaped, and keys without quotes."""

    shared = "quoted_"
    separator, colon = TextNode(","), TextNode(":")

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self.all_strings = self._quoted(ANY_TEXT)

    def string(self, language: Language) -> Node:
        """The texts that do not hold the quote."""
        return PatternNode(self._quoted(language))

    def order(self, names: Iterable[str]) -> list[str]:
        """The names sorted, as Jinja's dictsort does."""
        return sorted(names, key=str.lower)

    def name(self, name: str) -> Node:
        """A name as it is."""
        if not FREE_NAME.matches(name):
            refuse_name(name)
        return TextNode(name)

    def names(self, language: Language) -> Node:
        """The names that can be written."""
        return PatternNode(intersection(language, FREE_NAME))

    def any_name(self) -> Node:
        """All names that can be written."""
        return PatternNode(FREE_NAME)

    def _quoted(self, language: Language) -> Language:
        return concat(literal(self._quote), intersection(language, without(self._quote)), literal(self._quote))


def language_of_scalars(writer: ValueWriter, formula: Formula, constants: Collection[str] = ()) -> Language:
    """What is neither text nor structure, as one language: it is told from a text by its end alone.

    constants: those of Python that may be written too.
    """
    types = writer.reader.types(formula)
    words = [str(value) for value in types.booleans if str(value) in constants]
    words += [str(value).lower() for value in types.booleans]
    words += ["null", *(["None"] if "None" in constants else [])] if types.null else []
    return union(*map(literal, words), _language_of_numbers(writer, types.numbers))


def _language_of_numbers(writer: ValueWriter, numbers: tuple[NumberType, ...]) -> Language:
    try:
        return language_of_numbers(numbers)
    except InexactNumberError as error:
        writer.reader.refuse(error.pointer, error.keyword, error.reason)
        return nothing()


def refuse_name(name: str) -> NoReturn:
    """Raise the ConstraintError of a name that a format cannot write."""
    raise ConstraintError(f"parameter {name!r} has characters that the model's tool format cannot write in a name")

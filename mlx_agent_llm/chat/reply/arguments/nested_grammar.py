"""The arguments of a call as grammar, as tags within tags."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mlx_agent_llm.chat.reply.arguments.notations import FREE_NAME, language_of_scalars, refuse_name
from mlx_agent_llm.constrain.schema.values.array_type import ArrayType
from mlx_agent_llm.constrain.schema.values.formula import Formula
from mlx_agent_llm.constrain.schema.values.object_type import ALL_NAMES, ObjectType
from mlx_agent_llm.constrain.schema.values.types import EVERY_TYPE, Typed
from mlx_agent_llm.constrain.schema.write.value_writer import ValueWriter
from mlx_agent_llm.languages.context_free import Node, PatternNode, RepeatNode, TextNode, choice, sequence
from mlx_agent_llm.languages.regular import concat, intersection, literal, union, without


class NestedGrammar:
    """Writes values as elements: a text or another scalar as it is, structures as further elements.

    A text does not hold the mark. What an empty element is, its type says: a text before an array before an object.
    There is no element of null. Properties that are not declared cannot be written: their tags would have to agree.
    """

    def __init__(self, mark: str, item: str, end: str) -> None:
        self._mark = mark
        self._item = item
        self._end = end

    def whole(self, writer: ValueWriter, formula: Formula) -> Node:
        """The node of all parameters and of what ends the call."""
        closed = [
            replace(one, others=()) if one.others == ALL_NAMES else one for one in writer.reader.types(formula).objects
        ]
        return choice(sequence(self._members(writer, one), TextNode(self._end)) for one in closed)

    def _element(self, writer: ValueWriter, name: str, formula: Formula) -> Node:
        if not FREE_NAME.matches(name):
            refuse_name(name)
        end = f"{self._mark}</{name}>"
        return sequence(TextNode(f"{self._mark}<{name}>"), choice(self._options(writer, formula, end)))

    def _options(self, writer: ValueWriter, formula: Formula, end: str) -> list[Node]:
        """The values of a formula, each with the tag that ends it."""
        types = replace(writer.reader.types(formula), null=False)
        scalars = language_of_scalars(writer, Typed(types))
        texts = intersection(types.strings, without(self._mark))
        options: list[Node] = [PatternNode(concat(union(scalars, texts), literal(end)))]
        if types == replace(EVERY_TYPE, null=False):
            return options  # what may be anything is a text or a number
        is_text = types.strings.is_nullable
        arrays = [replace(one, least=max(1, one.least)) if is_text else one for one in types.arrays]
        has_empty = is_text or any(one.least == 0 for one in arrays)
        bodies = [writer.book.later("items", (one, self._mark), partial(self._items, writer, one)) for one in arrays]
        bodies += [
            writer.book.later(
                "elements", (one, self._mark, has_empty), partial(self._members, writer, one, not has_empty)
            )
            for one in types.objects
        ]
        return [*options, *(sequence(body, TextNode(end)) for body in bodies)]

    def _items(self, writer: ValueWriter, arrays: ArrayType) -> Node:
        if arrays.contains or arrays.unique is not None:
            keyword = "contains" if arrays.contains else "uniqueItems"
            writer.reader.refuse(arrays.pointer, keyword, "the model's tool format cannot compare items")
        if arrays.most is not None and arrays.least > arrays.most:
            return choice([])
        rest_least = max(0, arrays.least - len(arrays.prefix))
        rest_most = None if arrays.most is None else max(0, arrays.most - len(arrays.prefix))
        node: Node = TextNode("")
        if rest_most != 0 and not writer.reader.is_surely_empty(arrays.items):
            node = RepeatNode(self._element(writer, self._item, arrays.items), rest_least, rest_most)
        for index in reversed(range(len(arrays.prefix[: arrays.most]))):
            node = sequence(self._element(writer, self._item, arrays.prefix[index]), node)
            node = node if index < arrays.least else choice([TextNode(""), node])
        return node

    def _members(self, writer: ValueWriter, objects: ObjectType, may_be_empty: bool = True) -> Node:
        """The elements of an object in their order; of one that may not be empty, at least one."""
        self._check(writer, objects)
        after_one: Node = TextNode("")
        nothing_yet: Node = TextNode("") if may_be_empty else choice([])
        for name, value in reversed(objects.named):
            is_required = name in objects.required
            if writer.reader.is_surely_empty(value) and not is_required:
                continue
            element = sequence(self._element(writer, name, value), after_one)
            nothing_yet = element if is_required else choice([element, nothing_yet])
            after_one = writer.book.rule("elements", element if is_required else choice([element, after_one]))
        return nothing_yet

    def _check(self, writer: ValueWriter, objects: ObjectType) -> None:
        """Refuse what the elements of declared properties do not say."""
        reader, named = writer.reader, dict(objects.named)
        if objects.witnesses or objects.most is not None or objects.least > len(objects.required):
            keyword = "maxProperties" if objects.most is not None else "minProperties"
            reader.refuse(objects.pointer, keyword, "the model's tool format cannot count properties")
        is_open = any(not reader.is_surely_empty(value) for _, value in objects.others)
        if missing := objects.required - named.keys():
            refuse_name(min(missing))
        if is_open and not (named and objects.declares):
            reason = "the model's tool format writes declared properties alone"
            reader.refuse(objects.pointer, "additionalProperties", reason)

"""One call in a reply: what both kinds of calls are read into, and how each kind is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlx_agent_llm.chat.output import ChatDelta, ToolCall, ToolCallDelta
from mlx_agent_llm.chat.reply.arguments.json_text import load_json, read_json_object
from mlx_agent_llm.chat.reply.arguments.parameters import Parameters
from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.cursor import BrokenCallError, Cursor, Pieces, Reading, collect
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import JSONNotation, SchemaRules, schema_rules, write_json
from mlx_agent_llm.languages.context_free import Node, PatternNode, TextNode, choice, sequence
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.request.constraints import SEPARATORS

_ARGUMENTS_KEYS = ("arguments", "parameters")  # models take one for the other
_ID = PatternNode(parse_full_match("[A-Za-z0-9_-]{1,40}"))


class OpenCall:
    """A call that is being read: its fragments are shown as soon as its name is known to be a declared one."""

    def __init__(self, index: int, tools: Mapping[str, Tool], new_id: Callable[[str, int], str]) -> None:
        self.id = ""
        self._index = index
        self._tools = tools  # by the name in the reply
        self._new_id = new_id
        self._name: str | None = None
        self._arguments = ""

    @property
    def tool(self) -> Tool | None:
        """The tool that is called; None for one that was not declared."""
        return self._tools.get(self._name or "")

    @property
    def parts(self) -> tuple[str | None, Any]:
        """The name and the arguments as they were read."""
        return self._name, load_json(self._arguments)

    def begin(self, name: str) -> Iterator[ChatDelta]:
        """Take the name."""
        self._name = name
        self.id = self._new_id(name, self._index)
        if self.tool is not None:
            yield ChatDelta(tool_call=ToolCallDelta(self._index, self.id, self.tool.name))

    def add(self, piece: str) -> Iterator[ChatDelta]:
        """Take a piece of the arguments' JSON."""
        self._arguments += piece
        if self.tool is not None and piece:
            yield ChatDelta(tool_call=ToolCallDelta(self._index, arguments=piece))

    def add_all(self, pieces: Pieces[None]) -> Reading[None]:
        """Take the arguments' JSON as it comes."""
        for piece in pieces:
            if piece is None:
                yield None
            else:
                yield from self.add(piece)

    def finish(self) -> ToolCall:
        """The whole call; a BrokenCallError when the tool is unknown or the arguments are not valid for it."""
        if self.tool is None:
            known = ", ".join(map(repr, self._tools)) or "none"
            raise BrokenCallError(f"unknown tool {self._name!r}; known tools: {known}")
        arguments = load_json(self._arguments)
        Parameters.of(self.tool).check(arguments)
        return ToolCall(self.id, self.tool.name, arguments, self._arguments)


class ArgumentStyle(Protocol):
    """How the arguments of a call are written after its name."""

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts around values."""

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the arguments as the text of one JSON object, as they come."""

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the arguments and of what ends the call; their names begin with the prefix."""

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The arguments as they are written."""


@dataclass(frozen=True)
class JSONArguments:
    """A JSON object; separators: what stands between its members, and after their names."""

    separators: tuple[str, str] = SEPARATORS

    literals = ()

    def read(self, cursor: Cursor, parameters: Parameters) -> Pieces[None]:
        """Yield the object's text."""
        yield from cursor.skip_blanks()
        yield from read_json_object(cursor)

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of the object and of what ends the call."""
        rules = schema_rules(tool.parameters, prefix, tool.strict, notation=JSONNotation(self.separators))
        return replace(rules, root=sequence(rules.root, TextNode(end)))

    def write(self, arguments: Mapping[str, Any]) -> str:
        """The object."""
        return write_json(arguments, self.separators)


@dataclass(frozen=True)
class NamedCall:
    """The name, `arguments_begin`, and the arguments.

    In arguments_begin {index} is the number of the call in the reply, and {name} the name once more. header_end: the
    end of arguments_begin, where models write different things before it.
    """

    arguments_begin: str
    style: ArgumentStyle
    header_end: str = ""

    head = ""

    @property
    def is_tagged(self) -> bool:
        """Whether the arguments are parameters between tags."""
        return isinstance(self.style, TaggedArguments)

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts after the name, and around values."""
        return (self.arguments_begin, *self.style.literals)

    def read(self, cursor: Cursor, call: OpenCall) -> Reading[None]:
        """Read the call from its name on."""
        yield from cursor.skip_blanks()
        name = yield from cursor.read_name()
        yield from call.begin(name)
        if self.header_end:
            _, marker = yield from collect(cursor.read_until(self.header_end))
            if not marker:
                raise BrokenCallError(f"{self.header_end!r} is missing")
        else:
            yield from cursor.expect(self.between(name))
        parameters = Parameters.of(call.tool) if call.tool else Parameters.unknown()
        yield from call.add_all(self.style.read(cursor, parameters))

    def write(self, name: str, arguments: Mapping[str, Any], index: int) -> str:
        """The call as it is written."""
        between = self.between(name).replace("{index}", str(index))
        return name + between + self.style.write(arguments)

    def between(self, name: str) -> str:
        """What stands between this name and the arguments."""
        return self.arguments_begin.replace("{name}", name)

    def example(self) -> str:
        """A call for instructions."""
        return self.write("name", {"parameter": "value"}, 0)

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of a tool's arguments and of what ends the call."""
        return self.style.rules(tool, prefix, end)

    def spaced_like(self, other: NamedCall | JSONCall) -> NamedCall:
        """The same with the separators of another call, where the arguments of both are JSON."""
        if isinstance(other, NamedCall) and isinstance(other.style, JSONArguments):
            return replace(self, style=other.style) if isinstance(self.style, JSONArguments) else self
        return self


@dataclass(frozen=True)
class JSONCall:
    """A JSON object of the name and the arguments; with index_key the number of the call stands before them.

    id_key: where the model may write an id after them. outer: the separators around the name and the arguments; those
    within the arguments are `separators`. Read with any blanks, with its keys in any order, with an id or a type, with
    "arguments" for "parameters", and within OpenAI's {"type": "function", "function": ...}.
    """

    name_key: str = "name"
    arguments_key: str = "arguments"
    index_key: str | None = None
    id_key: str | None = None
    outer: tuple[str, str] = SEPARATORS
    separators: tuple[str, str] = SEPARATORS
    literals = ()

    @property
    def head(self) -> str:
        """What stands before the name."""
        comma, colon = self.outer
        number = "" if self.index_key is None else f'"{self.index_key}"{colon}"{{index}}"{comma}'
        return f'{{{number}"{self.name_key}"{colon}"'

    @property
    def between(self) -> str:
        """What stands between the name and the arguments."""
        comma, colon = self.outer
        return f'"{comma}"{self.arguments_key}"{colon}'

    def read(self, cursor: Cursor, call: OpenCall) -> Reading[None]:
        """Read the object; its arguments are shown as they come when they stand after the name."""
        yield from cursor.skip_blanks()
        begin = cursor.position
        is_usual = yield from self._read_usual(cursor, call)
        if not is_usual:
            cursor.position = begin
        for piece in read_json_object(cursor, depth=1 if is_usual else 0):
            if piece is None:
                yield None
        name, arguments = self._parts_of(load_json(cursor.text[begin : cursor.position]))
        if not is_usual:
            yield from call.begin(name)
            yield from call.add(write_json(arguments))
        elif (name, arguments) != call.parts:
            raise BrokenCallError(f"it must be {self.example()}")  # a key comes twice

    def example(self) -> str:
        """A call for instructions."""
        return f"{self.head}...{self.between}{{...}}}}".replace("{index}", "0")

    def rules(self, tool: Tool, prefix: str, end: str) -> SchemaRules:
        """The rules of a tool's arguments and of what ends the call."""
        rules = schema_rules(tool.parameters, prefix, tool.strict, notation=JSONNotation(self.separators))
        return replace(rules, root=sequence(rules.root, self._id_and_close(end)))

    def write(self, name: str, arguments: Mapping[str, Any], index: int) -> str:
        """The call as it is written."""
        head = self.head.replace("{index}", str(index))
        return f"{head}{name}{self.between}{write_json(arguments, self.separators)}}}"

    def spaced_like(self, other: NamedCall | JSONCall) -> JSONCall:
        """The same with the separators of another call of this kind."""
        if isinstance(other, JSONCall):
            return replace(self, outer=other.outer, separators=other.separators)
        return self

    def _id_and_close(self, end: str) -> Node:
        """What may follow the arguments."""
        if self.id_key is None:
            return TextNode("}" + end)
        comma, colon = self.outer
        given = sequence(TextNode(f'{comma}"{self.id_key}"{colon}"'), _ID, TextNode('"}' + end))
        return choice([TextNode("}" + end), given])

    def _read_usual(self, cursor: Cursor, call: OpenCall) -> Reading[bool]:
        """Read up to the end of the arguments; False where the object is not as it is usually written."""
        found = yield from cursor.match(self.head)
        name = yield from cursor.read_name()
        found = found and name != "" and (yield from cursor.match(self.between))
        yield from cursor.skip_blanks()
        if not found or (yield from cursor.peek()) != "{":
            return False
        yield from call.begin(name)
        yield from call.add_all(read_json_object(cursor))
        return True

    def _parts_of(self, call: Any) -> tuple[str, dict[str, Any]]:
        known = {self.name_key, self.arguments_key, self.index_key, self.id_key, "id", "type"}
        if call.get("type") == "function" and isinstance(call.get("function"), dict):
            call = call["function"]  # OpenAI's form
        keys = [key for key in (self.arguments_key, *_ARGUMENTS_KEYS) if key in call][:1]
        name, arguments = call.get(self.name_key), call.get(*keys) if keys else None
        if not isinstance(name, str) or not isinstance(arguments, dict) or not known.union(keys).issuperset(call):
            raise BrokenCallError(f"it must be {self.example()}")
        return name, arguments

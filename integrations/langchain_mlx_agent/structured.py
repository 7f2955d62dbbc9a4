"""Structured output: any kind of schema as a response format, and the answer as a value of it, also as it grows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, TypeGuard

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json
from typing_extensions import is_typeddict

from langchain_mlx_agent.tools import ENUM_KEY
from langchain_mlx_agent.typed_dicts import readable
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request.model_schema import is_schema_type, schema_of_type

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type

_FORMATS = frozenset({"text", "json_object", "json_schema"})
_NOTHING = object()


def json_schema_of(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of a pydantic class (v1 or v2), TypedDict, enum, OpenAI function or JSON Schema dict."""
    if is_typeddict(schema):
        return schema_of_type(readable(schema))
    if is_schema_type(schema):
        return schema_of_type(schema)
    if isinstance(schema, dict) and not ({"name", "function"} & schema.keys()):
        return schema
    return convert_to_json_schema(schema)


def traced_schema(schema: Schema) -> Schema:
    """What LangChain tells its tracers of: the schema itself, or its JSON where LangChain cannot read the class."""
    if not is_typeddict(schema):
        return schema
    try:
        convert_to_json_schema(schema)
    except Exception:  # it ends in all kinds of errors, and in a RecursionError
        return json_schema_of(schema)
    return schema


def is_model_class(value: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a value is a class of pydantic 2."""
    return isinstance(value, type) and issubclass(value, BaseModel)


def response_format_of(value: Any, strict: bool | None = None) -> dict[str, Any] | None:
    """OpenAI's response_format dict for one, or for a schema of any kind; None asks for no format."""
    if value is None or (isinstance(value, Mapping) and value.get("type") in _FORMATS):
        return value if value is None else dict(value)
    if not isinstance(value, dict | type):
        raise RequestError(f"response_format={value!r} must be a JSON Schema dict, a pydantic class or a TypedDict")
    schema = json_schema_of(value)
    inner: dict[str, Any] = {"name": schema.get("title", "response"), "schema": schema}
    if strict is not None:
        inner["strict"] = strict
    return {"type": "json_schema", "json_schema": inner}


class StructuredOutputParser(BaseTransformOutputParser[Any]):
    """Reads an answer as a value of a schema: a pydantic instance, an enum's member, or a dict that is checked.

    tool_name: the value is the arguments of that tool's call; otherwise it is the text. An answer that was cut off or
    does not fit is an OutputParserException; nothing is repaired. A stream gives the object as it grows, whenever that
    fits the class so far, and at last the whole one.
    """

    target: Any
    tool_name: str | None = None

    @property
    def OutputType(self) -> Any:  # LangChain's name
        """The class that was given, or dict."""
        return self.target if isinstance(self.target, type) else dict[str, Any]

    def parse(self, text: str) -> Any:
        """The value that a text is."""
        try:
            return self._value(text)
        except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            raise OutputParserException(f"the answer does not fit the schema: {error}", llm_output=text) from error

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The value of one chat generation; with partial what there is of it, or None."""
        generation = result[0]
        if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
            raise OutputParserException("structured output is read from chat messages only")
        if partial and isinstance(generation.message, AIMessageChunk):
            return self._partial(_text_so_far(generation.message, self.tool_name))
        return self.parse(self._text(generation.message))

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Like parse_result; the default would hand it to another thread."""
        return self.parse_result(result, partial=partial)

    def beside_raw(self, answers: Iterator[dict[str, Any]]) -> Iterator[AddableDict]:
        """Yield "raw", "parsed" and "parsing_error" for {"raw": message} as they come; one of the last two is None."""
        growing = _Growing(self)
        for answer in answers:
            yield AddableDict(answer)
            yield from (AddableDict(parsed=value) for value in growing.add(answer["raw"]))
        yield growing.ending()

    async def abeside_raw(self, answers: AsyncIterator[dict[str, Any]]) -> AsyncIterator[AddableDict]:
        """Like beside_raw, on the event loop."""
        growing = _Growing(self)
        async for answer in answers:
            yield AddableDict(answer)
            for value in growing.add(answer["raw"]):
                yield AddableDict(parsed=value)
        yield growing.ending()

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.end()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for chunk in input:
            for value in growing.add(chunk):
                yield value
        for value in growing.end():
            yield value

    def _text(self, message: AIMessage) -> str:
        metadata = message.response_metadata
        if metadata.get("finish_reason") == "length" and not metadata.get("forced_close"):
            raise OutputParserException("max_tokens ended inside the answer", llm_output=str(message.text))
        if self.tool_name is None:
            return str(message.text)
        for call in message.tool_calls:
            if call["name"] == self.tool_name:
                return json.dumps(call["args"])
        raise OutputParserException(f"the answer has no call of {self.tool_name!r}", llm_output=str(message.text))

    def _value(self, text: str) -> Any:
        if is_model_class(self.target):
            return self.target.model_validate_json(text)
        if isinstance(self.target, type) and is_basemodel_subclass(self.target):
            return self.target.parse_raw(text)  # type: ignore[attr-defined]  # a class of pydantic.v1
        if isinstance(self.target, type) and issubclass(self.target, Enum):
            member = json.loads(text) if self.tool_name is None else json.loads(text)[ENUM_KEY]
            return TypeAdapter(self.target).validate_json(json.dumps(member))
        value = json.loads(text)
        problem = violation(json_schema_of(self.target), value)
        if problem is not None:
            raise ValueError(str(problem))
        return value

    def _partial(self, text: str) -> Any:
        """The object so far: a dict, or an instance as soon as the class takes what there is."""
        try:
            value = from_json(text, allow_partial="trailing-strings") if text.strip() else None
        except ValueError:
            return None
        if not isinstance(value, dict) or (isinstance(self.target, type) and issubclass(self.target, Enum)):
            return None
        if not isinstance(self.target, type) or is_typeddict(self.target):
            return value
        try:
            return self._value(json.dumps(value))
        except ValueError:  # pydantic's ValidationError is one: not enough of it is there
            return None


class _Growing:
    """The chunks of one answer, and the value that was shown last."""

    def __init__(self, parser: StructuredOutputParser) -> None:
        self._parser = parser
        self._message: Any = None
        self._shown: Any = _NOTHING

    def add(self, chunk: Any) -> Iterator[Any]:
        """Take a chunk; the value so far where it is another one."""
        self._message = chunk if self._message is None else self._message + chunk
        if not isinstance(chunk, AIMessageChunk):
            return
        value = self._parser.parse_result([ChatGeneration(message=self._message)], partial=True)
        if value is not None and value != self._shown:
            self._shown = value
            yield value

    def end(self) -> Iterator[Any]:
        """The whole value, unless it was shown; an OutputParserException for what is none."""
        value = self._parser.parse_result([ChatGeneration(message=self._message)])
        if value != self._shown:
            yield value

    def ending(self) -> AddableDict:
        """The whole value, or the error of what is none."""
        try:
            value = self._parser.parse_result([ChatGeneration(message=self._message)])
        except OutputParserException as error:
            return AddableDict(parsed=None, parsing_error=error)
        return AddableDict(parsed=value, parsing_error=None)


def _text_so_far(message: AIMessageChunk, tool_name: str | None) -> str:
    if tool_name is None:
        return str(message.text)
    chunks = message.tool_call_chunks
    return str(chunks[0]["args"] or "") if chunks else ""

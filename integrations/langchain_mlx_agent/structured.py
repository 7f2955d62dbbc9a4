"""Structured output: any kind of schema as a response format, and the answer as a value of that schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, is_typeddict

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers.base import BaseGenerationOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import RequestError

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type

_FORMATS = frozenset({"text", "json_object", "json_schema"})


def json_schema_of(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of a pydantic class (v1 or v2), a TypedDict, an OpenAI function or a JSON Schema dict."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if isinstance(schema, dict) and not ({"name", "function"} & schema.keys()):
        return schema
    return _with_required_keys(schema, convert_to_json_schema(schema))


def tool_of(schema: Schema) -> dict[str, Any]:
    """An OpenAI tool whose arguments are a value of the schema; a JSON Schema dict needs a title, its name."""
    function = convert_to_openai_tool(schema)["function"]
    if "parameters" in function:
        function = {**function, "parameters": _with_required_keys(schema, function["parameters"])}
    return {"type": "function", "function": function}


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


class StructuredOutputParser(BaseGenerationOutputParser[Any]):
    """Reads an answer as a value of a schema: a pydantic instance, or a dict that is checked against the schema.

    tool_name: the value is the arguments of that tool's call; otherwise it is the text. An answer that was cut off or
    does not fit is an OutputParserException; nothing is repaired.
    """

    target: Any
    tool_name: str | None = None

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The value of one chat generation."""
        generation = result[0]
        if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
            raise OutputParserException("structured output is read from chat messages only")
        text = self._text(generation.message)
        try:
            return self._value(text)
        except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            raise OutputParserException(f"the answer does not fit the schema: {error}", llm_output=text) from error

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Like parse_result; the default would hand it to another thread."""
        return self.parse_result(result, partial=partial)

    def beside_raw(self, answer: dict[str, Any]) -> dict[str, Any]:
        """{"raw", "parsed", "parsing_error"} for {"raw": message}; one of the last two is None."""
        try:
            return {**answer, "parsed": self.invoke(answer["raw"]), "parsing_error": None}
        except OutputParserException as error:
            return {**answer, "parsed": None, "parsing_error": error}

    async def abeside_raw(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Like beside_raw, on the event loop."""
        return self.beside_raw(answer)

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
        if isinstance(self.target, type) and issubclass(self.target, BaseModel):
            return self.target.model_validate_json(text)
        if isinstance(self.target, type) and is_basemodel_subclass(self.target):
            return self.target.parse_raw(text)  # type: ignore[attr-defined]  # a class of pydantic.v1
        value = json.loads(text)
        problem = violation(json_schema_of(self.target), value)
        if problem is not None:
            raise ValueError(str(problem))
        return value


def _with_required_keys(schema: Schema, converted: dict[str, Any]) -> dict[str, Any]:
    """Require all keys of a TypedDict of which none is required: {} would satisfy it."""
    if not is_typeddict(schema) or converted.get("required"):
        return converted
    return {**converted, "required": list(converted.get("properties", {}))}

"""Objects of a pydantic class, decoded by its schema: whole, or as they grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, Generic

from llama_index.core.base.llms.types import ChatResponse, ChatResponseAsyncGen, ChatResponseGen
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from llama_index.llms.mlx_agent.errors import AnswerError, LLMRequestError, llm_errors
from mlx_agent_llm.request.model_schema import schema_of_type

_dispatcher = get_dispatcher(__name__)

_TOOL_OPTIONS = frozenset({"tool_choice", "tool_required", "allow_parallel_tool_calls"})


class SchemaDecodingLLM(FunctionCallingLLM):
    """An LLM whose structured predictions are chats with a response_format, without a tool in between.

    pydantic_program_mode: another one than the default chooses LlamaIndex's own ways.
    """

    strict: bool | None = Field(
        default=None,
        description="False checks what no grammar enforces of a schema afterwards, instead of refusing it.",
    )

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Answer with an object of a pydantic class, decoded by its schema; AnswerError when it refuses that."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            predicted: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return predicted
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        reader = ObjectReader(output_cls, self.strict)
        output: Model = reader.whole(self.chat(**self._object_request(reader, prompt, llm_kwargs, prompt_args)))
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like structured_predict, without blocking the event loop."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            predicted: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return predicted
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        reader = ObjectReader(output_cls, self.strict)
        output: Model = reader.whole(await self.achat(**self._object_request(reader, prompt, llm_kwargs, prompt_args)))
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """What stream_structured_predict yields: the object as it grows, at last the whole one."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        reader = ObjectReader(output_cls, self.strict)
        return reader.stream(self.stream_chat(**self._object_request(reader, prompt, llm_kwargs, prompt_args)))

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        reader = ObjectReader(output_cls, self.strict)
        return reader.astream(await self.astream_chat(**self._object_request(reader, prompt, llm_kwargs, prompt_args)))

    def _object_request(
        self,
        reader: ObjectReader[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> dict[str, Any]:
        """Arguments of a chat for one object. Choices of a tool mean nothing to it: it is the object in any case."""
        options = {name: value for name, value in (llm_kwargs or {}).items() if name not in _TOOL_OPTIONS}
        messages = prompt.format_messages(llm=self, **prompt_args)
        return {"messages": messages, "response_format": reader.response_format, **options}


class ObjectReader(Generic[Model]):
    """Reads the answers to one structured request."""

    def __init__(self, output_cls: type[Model], strict: bool | None = None) -> None:
        if not (isinstance(output_cls, type) and issubclass(output_cls, BaseModel)):
            raise LLMRequestError(f"output_cls={output_cls!r} must be a pydantic model class")
        self._output_cls = output_cls
        self._strict = strict
        self._flexible_cls = create_flexible_model(output_cls)
        self._shown: Any = {}

    @property
    def response_format(self) -> dict[str, Any]:
        """The class's schema in OpenAI's form, which tracers can write down."""
        with llm_errors():
            schema = schema_of_type(self._output_cls)
        inner = {"name": self._output_cls.__name__, "schema": schema, "strict": self._strict is not False}
        return {"type": "json_schema", "json_schema": inner}

    def stream(self, responses: ChatResponseGen) -> Generator[Model | FlexibleModel, None, None]:
        """Yield the fields whenever they grew, at last the whole object."""
        last: ChatResponse | None = None
        for last in responses:
            if (grown := self.partial(last)) is not None:
                yield grown
        assert last is not None, "the engine ends every stream with a response"
        yield self.whole(last)

    async def astream(self, responses: ChatResponseAsyncGen) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Like stream, for an event loop."""
        last: ChatResponse | None = None
        async for last in responses:
            if (grown := self.partial(last)) is not None:
                yield grown
        assert last is not None, "the engine ends every stream with a response"
        yield self.whole(last)

    def partial(self, response: ChatResponse) -> FlexibleModel | None:
        """The fields so far, or None when there is nothing new.

        A FlexibleModel, also where the class would do: its last text or number may be half of what it will be.
        """
        text = response.message.content
        value = from_json(text, allow_partial="trailing-strings") if text else {}
        if value == self._shown:
            return None
        self._shown = value
        return self._flexible_cls.model_validate(value)

    def whole(self, response: ChatResponse) -> Model:
        """The object; AnswerError when its class does not accept what its schema allows."""
        try:
            return self._output_cls.model_validate_json(response.message.content or "")
        except ValidationError as error:
            raise AnswerError(f"the answer is no {self._output_cls.__name__}: {error}") from error

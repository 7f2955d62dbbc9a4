"""ChatMLXAgent: LangChain's chat model over one engine; every call, sync or async, is a fold of one stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import ExitStack, aclosing, closing
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap

from langchain_mlx_agent.answers import PROVIDER, AnswerReader
from langchain_mlx_agent.batching import BatchingChatModel
from langchain_mlx_agent.errors import langchain_errors
from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.open_requests import current_requests
from langchain_mlx_agent.remote import AnyEngine
from langchain_mlx_agent.request import ChatRequest, read_request
from langchain_mlx_agent.structured import (
    Method,
    Schema,
    StructuredOutputParser,
    is_model_class,
    response_format_of,
    traced_schema,
)
from langchain_mlx_agent.tools import Tools, bound_tools, openai_tool
from langchain_mlx_agent.traced_streams import TracedStreams, trace_id_of
from mlx_agent_llm import ChatDelta, RequestError


class ChatMLXAgent(TracedStreams, BatchingChatModel):
    """A chat model over one engine in this process, or a server's, made for many agents at a time.

    Setup:
        `pip install "mlx-agent-llm[langchain]"`

    Key init args:
        model: "demo", a hub id, a local directory or a .gguf file; loaded on first use, and shared with every chat
            model of the same model and engine_config until the last one of them is closed.
        engine: a running Engine instead; it stays its owner's to close.
        base_url, api_key: a server's instead (`mlx-agent serve`): the same model for many processes, with all that is
            said here. The model is one of its names, by default its first.
        temperature, max_tokens, top_p, top_k, min_p, seed, stop, timeout: as in SamplingParams, whose defaults hold for
            None. Further fields of SamplingParams go into model_kwargs. Each can be given in a call, too.

    Instantiate:
        ```python
        chat = ChatMLXAgent(model="demo", temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        chat.invoke("What is the capital of France?").text
        ```

    Stream:
        ```python
        for chunk in chat.stream("Hello"):
            print(chunk.text, end="")
        ```

    Async:
        ```python
        await chat.abatch(["Hello", "Bonjour"])  # one batch on the engine
        ```

    Tool calling:
        ```python
        chat.bind_tools([multiply], tool_choice="any").invoke("What is 6 times 7?").tool_calls
        ```
        Every call is valid for its tool's schema, also when max_tokens ends the answer; see forced_close in
        response_metadata.

    Structured output:
        ```python
        chat.with_structured_output(Person).invoke("Ann is 30 years old.")
        ```

    Usage metadata:
        ```python
        chat.invoke("Hello").usage_metadata["input_token_details"]["cache_read"]
        ```
    """

    def bind_tools(
        self,
        tools: Tools,
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools: LangChain tools, functions, pydantic classes, TypedDicts or OpenAI dicts.

        tool_choice: None, False or "auto"; "none"; "any", "required" or True; a tool's name;
        {"type": "function", "function": {"name": ...}}. An unknown name is a ToolChoiceError.
        strict: with False, what no grammar enforces of the tools' schemas and of the response_format is checked when
            the answer is whole, which is then sampled again, instead of being refused here; a tool's own strict counts
            first. Calls fit their schemas in any case.
        parallel_tool_calls: False allows one call an answer.
        response_format: a schema; the answer is calls, or else JSON of that schema.
        """
        strict = self.strict if strict is None else strict
        with langchain_errors():
            converted = bound_tools(tools, tool_choice, parallel_tool_calls is not False, strict)
        options = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": (
                response_format if is_model_class(response_format) else response_format_of(response_format, strict)
            ),
            "strict": strict,
        }
        return self.bind(
            tools=converted, **{key: value for key, value in options.items() if value is not None}, **kwargs
        )

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """A runnable that answers with values of a pydantic class, a TypedDict, an enum or a JSON Schema (as a dict).

        method: "json_schema" has the grammar in the sampler, "function_calling" forces a call of a tool with that
        schema, "json_mode" guarantees a JSON object only. An answer that does not fit is an OutputParserException; with
        include_raw it is the parsing_error beside the raw message.
        strict: with False, the keywords that no grammar enforces are checked instead of refused; an answer that still
        breaks one is an InvalidOutputError.
        Streams give the object as it grows.
        """
        strict = self.strict if strict is None else strict
        kwargs["ls_structured_output_format"] = {
            "kwargs": {"method": method, "strict": strict},
            "schema": traced_schema(schema),
        }
        tool_name = None
        if method == "function_calling":
            tool = openai_tool(schema, strict)
            tool_name = tool["function"]["name"]
            model = self.bind_tools([tool], tool_choice=tool_name, parallel_tool_calls=False, **kwargs)
        elif method == "json_schema":
            model = self.bind(response_format=response_format_of(schema, strict), **kwargs)
        elif method == "json_mode":
            model = self.bind(response_format={"type": "json_object"}, **kwargs)
        else:
            raise RequestError(f"method={method!r} must be 'json_schema', 'function_calling' or 'json_mode'")
        parser = StructuredOutputParser(target=schema, tool_name=tool_name)
        if not include_raw:
            return model | parser
        return RunnableMap(raw=model) | RunnableGenerator(parser.beside_raw, parser.abeside_raw)

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, without any that the tokenizer would put around it."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._open(self.model).tokenizer.encode(text, add_special_tokens=False)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Tools | None = None) -> int:
        """The length of the prompt that the chat template makes of the messages and tools.

        Any part of a conversation can be counted, in any order: trim_messages asks for that.
        """
        with langchain_errors():
            converted = [openai_tool(tool) for tool in tools or ()]
            return self._open(self.model).count_tokens(as_dicts(messages), tools=converted)

    @property
    def _llm_type(self) -> str:
        return "mlx-agent"

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=self.stop if stop is None else stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)
        return {**params, "ls_provider": PROVIDER}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors(), ExitStack() as stack:
            request, begin = self._request(messages, stop, kwargs, run_manager), time.perf_counter()
            engine = self._open(request.model)
            load_seconds = time.perf_counter() - begin
            streams = [stack.enter_context(_stream_of(engine, request, options)) for options in request.samples]
            return _result(
                [_reader(engine, request, load_seconds).message(list(stream)) for stream in streams], request.model
            )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            request, begin = self._request(messages, stop, kwargs, run_manager), time.perf_counter()
            engine = await self._aopen(request.model)
            seconds = time.perf_counter() - begin
            answers = [asyncio.ensure_future(_answer(engine, request, options, seconds)) for options in request.samples]
            try:
                return _result(await asyncio.gather(*answers), request.model)
            finally:
                for answer in answers:
                    answer.cancel()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with langchain_errors():
            request, begin = self._request(messages, stop, kwargs, run_manager), time.perf_counter()
            engine = self._open(request.model)
            reader = _reader(engine, request, time.perf_counter() - begin)
            with _stream_of(engine, request, request.only_sample) as deltas:
                for delta in deltas:
                    if (chunk := reader.chunk(delta, request.stream_usage)) is not None:
                        yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with langchain_errors():
            request, begin = self._request(messages, stop, kwargs, run_manager), time.perf_counter()
            engine = await self._aopen(request.model)
            reader = _reader(engine, request, time.perf_counter() - begin)
            async with _astream_of(engine, request, request.only_sample) as deltas:
                async for delta in deltas:
                    if (chunk := reader.chunk(delta, request.stream_usage)) is not None:
                        yield chunk

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any], run: BaseRunManager | None
    ) -> ChatRequest:
        own = {**self._sampling, **self._reasoning, "strict": self.strict, "stream_usage": self.stream_usage}
        own["trace_id"] = trace_id_of(run)
        return read_request(messages, self.model, own if stop is None else {**own, "stop": stop}, options)


def _stream_of(engine: AnyEngine, request: ChatRequest, options: dict[str, Any]) -> closing[Generator[ChatDelta]]:
    stream = cast("Generator[ChatDelta]", engine.stream_chat(request.messages, **options))
    if (requests := current_requests()) is not None:
        requests.add(stream)
    return closing(stream)


def _astream_of(
    engine: AnyEngine, request: ChatRequest, options: dict[str, Any]
) -> aclosing[AsyncGenerator[ChatDelta]]:
    return aclosing(cast("AsyncGenerator[ChatDelta]", engine.astream_chat(request.messages, **options)))


async def _answer(engine: AnyEngine, request: ChatRequest, options: dict[str, Any], load_seconds: float) -> AIMessage:
    async with _astream_of(engine, request, options) as deltas:
        return _reader(engine, request, load_seconds).message([delta async for delta in deltas])


def _reader(engine: AnyEngine, request: ChatRequest, load_seconds: float) -> AnswerReader:
    token_bytes = engine.tokenizer.token_bytes
    return AnswerReader(request.model, token_bytes, load_seconds, request.parsed_class)


def _result(messages: Sequence[AIMessage], model_name: str) -> ChatResult:
    usages = [message.response_metadata["token_usage"] for message in messages]
    usage = {**usages[0], "completion_tokens": sum(one["completion_tokens"] for one in usages)}
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    generations = [ChatGeneration(message=message) for message in messages]
    return ChatResult(generations=generations, llm_output={"token_usage": usage, "model_name": model_name})

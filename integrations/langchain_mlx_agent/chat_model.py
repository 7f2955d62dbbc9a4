"""ChatMLXAgent: LangChain's chat model over one engine; every call, sync or async, is a fold of one stream."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Self, cast
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableMap
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import AliasChoices, Field, PrivateAttr, model_validator

from langchain_mlx_agent.chunks import PROVIDER, ChunkWriter
from langchain_mlx_agent.engines import EngineHolder, EngineRegistry
from langchain_mlx_agent.errors import langchain_errors
from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.request import SAMPLING_OPTIONS, ChatRequest, read_request, sampling_params
from langchain_mlx_agent.structured import Method, Schema, StructuredOutputParser, response_format_of, tool_of
from mlx_agent_llm import ChatDelta, Engine, EngineConfig, RequestError
from mlx_agent_llm.chat import as_tool, prepare_chat
from mlx_agent_llm.chat.tools import plan_tools

Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


class ChatMLXAgent(BaseChatModel):
    """A chat model over one engine in this process, made for many agents at a time.

    Setup:
        `pip install "mlx-agent-llm[langchain]"`

    Key init args:
        model: "demo", a hub id, a local directory or a .gguf file; loaded on first use, and shared with every chat
            model of the same model and engine_config until the last one of them is closed.
        engine: a running Engine instead; it stays its owner's to close.
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
        Every call is valid for its tool's schema; one that max_tokens cut off stands in invalid_tool_calls.

    Structured output:
        ```python
        chat.with_structured_output(Person).invoke("Ann is 30 years old.")
        ```

    Usage metadata:
        ```python
        chat.invoke("Hello").usage_metadata["input_token_details"]["cache_read"]
        ```
    """

    engines: ClassVar[EngineRegistry] = EngineRegistry()

    model: str = Field(default="", validation_alias=AliasChoices("model", "model_name"))
    """What Engine.load takes; with an engine, that engine's model."""
    engine: Engine | None = Field(default=None, exclude=True, repr=False)
    """A running engine."""
    engine_config: EngineConfig | None = None
    """How an engine that is loaded here is set up."""
    temperature: float | None = None
    """0 takes the most probable token."""
    max_tokens: int | None = None
    """Most new tokens of an answer."""
    top_p: float | None = None
    """Keep the smallest set of tokens with this probability mass."""
    top_k: int | None = None
    """Keep this many most probable tokens; 0 keeps all."""
    min_p: float | None = None
    """Keep tokens at least this many times as probable as the best one."""
    seed: int | None = None
    """Answers are a function of messages, parameters and seed."""
    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    """Texts that end an answer; a call's own stop replaces them, and [] means none."""
    timeout: float | None = None
    """Seconds after which a call fails with RequestTimeout."""
    streaming: bool | None = None
    """Whether invoke goes through stream, so that callbacks get tokens."""
    max_retries: int | None = None
    """Taken for the sake of code that sets it everywhere: an engine in this process is not retried."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of SamplingParams: stop_token_ids, ignore_eos, priority."""

    _holder: EngineHolder = PrivateAttr(default_factory=EngineHolder)

    @model_validator(mode="before")
    @classmethod
    def _read_parameters(cls, values: Any) -> Any:
        """Take the model's name from the engine, and tell of parameters that nobody reads."""
        if not isinstance(values, dict):
            return values
        unknown = sorted(values.keys() - cls.model_fields.keys() - {"model_name", "stop_sequences"})
        if unknown:
            names = ", ".join(map(repr, unknown))
            warnings.warn(f"ChatMLXAgent has no parameter {names}, which has no effect", stacklevel=4)
        engine = values.get("engine")
        named = {"model", "model_name"} & values.keys()
        return values if named or not isinstance(engine, Engine) else {**values, "model": engine.model_name}

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if not self.model:
            raise ValueError("model='' must be the name of a model, or engine must be given")
        if self.engine is not None and self.model != self.engine.model_name:
            raise ValueError(f"model={self.model!r} is not what engine serves: {self.engine.model_name!r}")
        if self.engine is not None and self.engine_config is not None:
            raise ValueError("engine_config sets up an engine that is loaded here: it cannot be combined with engine")
        extra = SAMPLING_OPTIONS - type(self).model_fields.keys()
        if unknown := self.model_kwargs.keys() - extra:
            raise ValueError(f"model_kwargs holds {sorted(unknown)[0]!r}; known: {', '.join(sorted(extra))}")
        sampling_params(self._sampling)
        return self

    def close(self) -> None:
        """Give back the engines loaded for this chat model; the next call loads again. Leaves `engine` alone."""
        self.engines.release(self._holder)

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
        """Return this model with tools: LangChain tools, functions, pydantic classes, TypedDicts or OpenAI dicts.

        tool_choice: None, False or "auto"; "none"; "any", "required" or True; a tool's name;
        {"type": "function", "function": {"name": ...}}. An unknown name is a ToolChoiceError.
        strict: taken as given elsewhere; calls fit their schemas in any case.
        parallel_tool_calls: False allows one call an answer.
        response_format: a schema; the answer is calls, or else JSON of that schema.
        """
        converted = [convert_to_openai_tool(tool) for tool in tools]
        plan_tools(tuple(map(as_tool, converted)), tool_choice, parallel_tool_calls is not False)
        options = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format_of(response_format, strict),
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
        """Return a runnable that answers with values of a pydantic class, a TypedDict or a JSON Schema (as a dict).

        method: "json_schema" has the grammar in the sampler, "function_calling" forces a call of a tool with that
        schema, "json_mode" guarantees JSON only. An answer that was cut off or does not fit is an
        OutputParserException; with include_raw it is the parsing_error beside the raw message.
        strict: taken as given elsewhere; with the first two methods the grammar is exact in any case.
        """
        kwargs["ls_structured_output_format"] = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        tool_name = None
        if method == "function_calling":
            tool = tool_of(schema)
            tool_name = tool["function"]["name"]
            model = self.bind_tools([tool], tool_choice=tool_name, **kwargs)
        elif method == "json_schema":
            model = self.bind(response_format=response_format_of(schema, strict), **kwargs)
        elif method == "json_mode":
            model = self.bind(response_format={"type": "json_object"}, **kwargs)
        else:
            raise RequestError(f"method={method!r} must be 'json_schema', 'function_calling' or 'json_mode'")
        parser = StructuredOutputParser(target=schema, tool_name=tool_name)
        return RunnableMap(raw=model) | RunnableLambda(parser.beside_raw) if include_raw else model | parser

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs at once, as many at a time as the engine runs unless max_concurrency says otherwise."""
        configs = get_config_list(config, len(inputs))
        if configs and configs[0].get("max_concurrency") is None:
            configs[0]["max_concurrency"] = self._num_at_a_time(len(inputs))
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer several lists of messages at once; when one fails the others still finish, and then it is raised."""
        if len(messages) < 2:
            return super().generate(messages, stop, callbacks, run_id=run_id, **kwargs)
        generate = partial(super().generate, stop=stop, callbacks=callbacks, **kwargs)
        with ContextThreadPoolExecutor(max_workers=self._num_at_a_time(len(messages))) as threads:
            runs = [
                threads.submit(generate, [one], run_id=None if index else run_id) for index, one in enumerate(messages)
            ]
        results = [run.result() for run in runs]
        return LLMResult(
            generations=[result.generations[0] for result in results],
            llm_output={},
            run=[info for result in results for info in result.run or ()],
        )

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that the tokenizer would put around it."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._open(self.model).tokenizer.encode(text, add_special_tokens=False)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Tools | None = None) -> int:
        """Return the length of the prompt that the chat template makes of the messages and tools."""
        converted = [convert_to_openai_tool(tool) for tool in tools or ()]
        return len(prepare_chat(self._open(self.model).tokenizer, as_dicts(messages), tools=converted).prompt_token_ids)

    @property
    def _llm_type(self) -> str:
        return "mlx-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on beside the messages: the key of LangChain's cache."""
        sampling = asdict(sampling_params(self._sampling))
        own = {name: sampling[name] for name in sorted(SAMPLING_OPTIONS)}
        return {"model": self.model, "engine_config": asdict(self._config), **own}

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=self.stop if stop is None else stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)
        return {**params, "ls_provider": PROVIDER}

    def _resolve_model_profile(self) -> ModelProfile:
        """Say what the model can do; the length of its context is known when an engine is given."""
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            reasoning_output=False,
            open_weights=True,
        )
        if self.engine is not None:
            profile["max_input_tokens"] = profile["max_output_tokens"] = self.engine.max_model_len - 1
        return profile

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        writer = ChunkWriter(request.model)
        return writer.result(list(self._chunks(request, writer)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        writer = ChunkWriter(request.model)
        return writer.result([chunk async for chunk in self._achunks(request, writer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        return self._chunks(request, ChunkWriter(request.model))

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        return self._achunks(request, ChunkWriter(request.model))

    def _chunks(self, request: ChatRequest, writer: ChunkWriter) -> Iterator[ChatGenerationChunk]:
        with langchain_errors():
            engine = self._open(request.model)
            deltas = cast("Generator[ChatDelta]", engine.stream_chat(request.messages, **request.options))
            with closing(deltas):
                for delta in deltas:
                    yield from writer.write(delta)

    async def _achunks(self, request: ChatRequest, writer: ChunkWriter) -> AsyncIterator[ChatGenerationChunk]:
        with langchain_errors():
            engine = await asyncio.to_thread(self._open, request.model)
            deltas = cast("AsyncGenerator[ChatDelta]", engine.astream_chat(request.messages, **request.options))
            async with aclosing(deltas):
                async for delta in deltas:
                    for chunk in writer.write(delta):
                        yield chunk

    def _open(self, model: str) -> Engine:
        if self.engine is not None and model == self.engine.model_name:
            return self.engine
        return self.engines.acquire(self._holder, model, self.engine_config or EngineConfig())

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> ChatRequest:
        sampling = self._sampling if stop is None else {**self._sampling, "stop": stop}
        return read_request(messages, self.model, sampling, options)

    @property
    def _sampling(self) -> dict[str, Any]:
        own = SAMPLING_OPTIONS & type(self).model_fields.keys()
        return {**{name: getattr(self, name) for name in own}, **self.model_kwargs}

    @property
    def _config(self) -> EngineConfig:
        return self.engine.config if self.engine is not None else self.engine_config or EngineConfig()

    def _num_at_a_time(self, num_inputs: int) -> int:
        return min(num_inputs, self._config.max_num_seqs)

"""MLXAgentLLM: LlamaIndex's LLM over one engine; every call, sync or async, chat or prompt, folds one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    prompt_to_messages,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.generic_utils import messages_to_prompt as default_messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection, default_completion_to_prompt
from llama_index.core.tools import BaseTool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from llama_index.llms.mlx_agent.callbacks import observed_astream, observed_stream
from llama_index.llms.mlx_agent.errors import AnswerError, llm_errors
from llama_index.llms.mlx_agent.messages import as_dicts
from llama_index.llms.mlx_agent.request import SETTINGS, chat_options, completion_options, own_names
from llama_index.llms.mlx_agent.responses import (
    AsyncDeltas,
    Deltas,
    ResponseWriter,
    astream_responses,
    awhole_response,
    stream_responses,
    whole_response,
)
from llama_index.llms.mlx_agent.structured import SchemaDecodingLLM
from llama_index.llms.mlx_agent.tools import as_tool_dict, read_selections, tool_choice_of
from mlx_agent_llm import Engine, EngineClosedError, EngineConfig
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS
from mlx_agent_llm.chat.tools import as_tools, check_parameters, plan_tools
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.engine.registry import SHARED_ENGINES, EngineHolder, EngineRegistry

if TYPE_CHECKING:
    from mlx_agent_llm.remote import RemoteEngine


class MLXAgentLLM(SchemaDecodingLLM):
    """An LLM over one engine in this process, or a server's, made for many agents and queries at a time.

    model: "demo", a hub id, a local directory or a .gguf file. It is loaded when the LLM is made, because LlamaIndex
        asks for its context on event loops, and shared with every LLM of the same model and engine_config until the
        last one of them is closed.
    engine: a running Engine instead; it stays its owner's to close.
    base_url, api_key: a server's instead (`mlx-agent serve`): the same model for many processes, with all that is said
        here. The model is one of its names, by default its first. The key is not written with the settings.
    temperature, max_tokens, top_p, top_k, min_p, seed, stop, timeout: as in SamplingParams, whose defaults hold for
        None. Further fields of SamplingParams go into additional_kwargs. Each can be given in a call, too, beside a
        constraint, and tools, tool_choice, parallel_tool_calls and response_format as Engine.stream_chat takes them.
    reasoning, max_reasoning_tokens, logprobs, top_logprobs, json_mode, strict: of chats; a call can set them, too.
    system_prompt: comes first in every chat and completion, sync or async, unless it stands there already.

    Pickled, copied through to_dict or written as JSON, an LLM is its settings; callbacks and engine stay behind.

        llm = MLXAgentLLM(model="demo", max_tokens=64)
        llm.complete("The capital of France is").text
        await llm.achat([ChatMessage("Hello")])
        llm.structured_predict(City, PromptTemplate("Name a city in {country}."), country="France")
        FunctionAgent(tools=[multiply], llm=llm)
    """

    model_config = ConfigDict(extra="forbid")
    engines: ClassVar[EngineRegistry] = SHARED_ENGINES

    model: str = Field(default="", description="What Engine.load takes; with an engine, that engine's model.")
    engine: Engine | None = Field(default=None, exclude=True, repr=False, description="A running engine.")
    engine_config: EngineConfig | None = Field(default=None, description="How an engine that is loaded is set up.")
    base_url: str | None = Field(default=None, description="Where `mlx-agent serve` listens, whose engine answers.")
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False, description="The server's.")
    temperature: float | None = Field(default=None, description="0 takes the most probable token.")
    max_tokens: int | None = Field(default=None, description="Most new tokens of an answer.")
    top_p: float | None = Field(default=None, description="Keep the smallest set of tokens with this probability mass.")
    top_k: int | None = Field(default=None, description="Keep this many most probable tokens; 0 keeps all.")
    min_p: float | None = Field(
        default=None, description="Keep tokens at least this many times as probable as the best."
    )
    seed: int | None = Field(default=None, description="Answers are a function of messages, parameters and seed.")
    stop: list[str] | None = Field(default=None, description="Texts that end an answer; a call's own replace them.")
    timeout: float | None = Field(default=None, description="Seconds after which a call fails with RequestTimeout.")
    reasoning: bool | Literal["low", "medium", "high"] | None = Field(
        default=None, description="The chat template's switch for thinking, or a level of it; None leaves it as it is."
    )
    max_reasoning_tokens: int | None = Field(default=None, description="Then the end of the reasoning is written.")
    logprobs: bool | None = Field(default=None, description="Whether responses have log-probabilities.")
    top_logprobs: int | None = Field(default=None, description="How many of the most probable tokens beside each.")
    json_mode: bool = Field(default=False, description="Chats answer with a JSON object unless a call says otherwise.")
    context_window: int | None = Field(default=None, description="Most tokens of a prompt that LlamaIndex packs.")
    additional_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further fields of SamplingParams.")

    _holder: EngineHolder = PrivateAttr(default_factory=EngineHolder)
    _running: Engine | RemoteEngine | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _name_the_model(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        named = own_names({name: value for name, value in values.items() if name != "format"})
        further = {name: named.pop(name) for name in SAMPLING_OPTIONS & named.keys() - cls.model_fields.keys()}
        if further:
            named["additional_kwargs"] = {**named.get("additional_kwargs", {}), **further}
        if named.get("base_url") is not None:
            return {"model": "default", **named}
        engine = values.get("engine")
        return {"model": engine.model_name, **named} if isinstance(engine, Engine) else named

    @model_validator(mode="after")
    def _check_and_load(self) -> Self:
        if not self.model:
            raise ValueError("model='' must be the name of a model, or engine must be given")
        if self.engine is not None and self.model != self.engine.model_name:
            raise ValueError(f"model={self.model!r} is not what engine serves: {self.engine.model_name!r}")
        if self.engine is not None and self.engine_config is not None:
            raise ValueError("engine_config sets up an engine that is loaded here: it cannot be combined with engine")
        if self.base_url is not None and (self.engine is not None or self.engine_config is not None):
            raise ValueError(f"base_url={self.base_url!r} has an engine of its own: it cannot be combined with one")
        extra = SAMPLING_OPTIONS - type(self).model_fields.keys() - {"constraint"}  # which is no setting but a call's
        if unknown := self.additional_kwargs.keys() - extra:
            raise ValueError(f"additional_kwargs holds {sorted(unknown)[0]!r}; known: {', '.join(sorted(extra))}")
        completion_options(self._settings, {})
        self._running = self._open()
        if self.context_window is not None and not 1 <= self.context_window <= self._engine.max_model_len:
            bound = self._engine.max_model_len
            self.close()
            raise ValueError(f"context_window={self.context_window} must be between 1 and the model's {bound}")
        if self._is_chat_model and (idle := self._prompt_writers()):
            self.close()
            raise ValueError(f"{idle[0]} would have no effect: the chat template of {self.model!r} writes the prompts")
        return self

    def _open(self) -> Engine | RemoteEngine:
        if self.base_url is None:
            config = self.engine_config or EngineConfig()
            return self.engine or self.engines.acquire(self._holder, self.model, config)
        from mlx_agent_llm.remote import RemoteEngine, RemoteServer

        api_key = None if self.api_key is None else self.api_key.get_secret_value()
        return RemoteEngine(RemoteServer(self.base_url, api_key), self.model)

    def _prompt_writers(self) -> list[str]:
        """Names of the given settings by which LlamaIndex writes prompts for models without a chat template."""
        given = {
            "messages_to_prompt": self.messages_to_prompt not in (None, default_messages_to_prompt),
            "completion_to_prompt": self.completion_to_prompt not in (None, default_completion_to_prompt),
            "query_wrapper_prompt": self.query_wrapper_prompt is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    @classmethod
    def class_name(cls) -> str:
        """The name that serialized settings carry."""
        return "MLXAgentLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Context, output length and abilities; a model without a chat template only completes prompts."""
        return LLMMetadata(
            context_window=self.context_window or self._engine.max_model_len,
            num_output=completion_options(self._settings, {})["params"].max_tokens,
            is_chat_model=self._is_chat_model,
            is_function_calling_model=self._is_chat_model,
            model_name=self.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """What observers are told: the metadata, and the sampling parameters that were set."""
        given = {name: value for name, value in self._settings.items() if value is not None}
        return {**super().to_payload(), **given}

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text; as Settings.tokenizer, LlamaIndex fills contexts by the model's own count."""
        return self._engine.tokenizer.encode(text, add_special_tokens=False)

    def close(self) -> None:
        """Give back the engine loaded for this LLM, which is of no use afterwards. Leaves `engine` alone."""
        self._running = None
        self.engines.release(self._holder)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's own way deletes what cannot be pickled, the engine, from this object too.
        return type(self).from_dict, (self.to_dict(),)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer chat messages; options as in the class docstring."""
        return whole_response(self._chat(messages, kwargs), self._writer())

    @observed_stream(llm_chat_callback())
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the answer as it grows; closing the generator cancels the request."""
        return stream_responses(self._chat(messages, kwargs), self._writer())

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like chat, without blocking the event loop; cancelling the task cancels the request."""
        return await awhole_response(self._achat(messages, kwargs), self._writer())

    @observed_astream(llm_chat_callback())
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like stream_chat, for an event loop."""
        return astream_responses(self._achat(messages, kwargs), self._writer())

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a user's message; formatted: it is run as it stands, without chat template."""
        response = whole_response(self._complete(prompt, formatted, kwargs), self._writer())
        return chat_response_to_completion_response(response)

    @observed_stream(llm_completion_callback())
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Like complete, as it grows."""
        responses = stream_responses(self._complete(prompt, formatted, kwargs), self._writer())
        return stream_chat_response_to_completion_response(responses)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like complete, without blocking the event loop."""
        response = await awhole_response(self._acomplete(prompt, formatted, kwargs), self._writer())
        return chat_response_to_completion_response(response)

    @observed_astream(llm_completion_callback())
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like stream_complete, for an event loop."""
        responses = astream_responses(self._acomplete(prompt, formatted, kwargs), self._writer())
        return astream_chat_response_to_completion_response(responses)

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of chat; tools and choices that make no sense are refused here already.

        tool_choice: "auto", "none", "required" (or "any", True), a tool's name or OpenAI's dict.
        """
        messages = list(chat_history or ())
        if user_msg is not None:
            messages += [user_msg] if isinstance(user_msg, ChatMessage) else prompt_to_messages(user_msg)
        with llm_errors():
            tool_dicts = [as_tool_dict(tool, self.strict) for tool in tools]
            choice = tool_choice_of(tool_choice, tool_required)
            plan = plan_tools(as_tools(tool_dicts), choice, allow_parallel_tool_calls)
            check_parameters(plan.shown, constraint_grammar)
        options = {"tools": tool_dicts, "tool_choice": choice, "parallel_tool_calls": allow_parallel_tool_calls}
        return {"messages": messages, **options, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of an answer, or as much of them as a streamed one holds so far.

        AnswerError: a call broke off, or there is none although there has to be.
        """
        selections = read_selections(response)
        if error_on_no_tool_call and not selections:
            raise AnswerError(f"the answer has no tool call: {response.message.content!r}")
        return selections

    def _extend_messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Put system_prompt first, where LlamaIndex did not: it does on some ways to chat, and not on others."""
        first = messages[0] if messages else None
        if first is not None and first.role is MessageRole.SYSTEM and first.content == self.system_prompt:
            return list(messages)
        return super()._extend_messages(list(messages))

    def _chat(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> Deltas:
        with llm_errors():
            return self._engine.stream_chat(**self._chat_request(messages, options))

    def _achat(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> AsyncDeltas:
        with llm_errors():
            return self._engine.astream_chat(**self._chat_request(messages, options))

    def _complete(self, prompt: str, formatted: bool, options: dict[str, Any]) -> Deltas:
        if self._is_chat_model and not formatted:
            return self._chat(prompt_to_messages(prompt), options)
        with llm_errors():
            return self._engine.stream(**self._prompt_request(prompt, formatted, options))

    def _acomplete(self, prompt: str, formatted: bool, options: dict[str, Any]) -> AsyncDeltas:
        if self._is_chat_model and not formatted:
            return self._achat(prompt_to_messages(prompt), options)
        with llm_errors():
            return self._engine.astream(**self._prompt_request(prompt, formatted, options))

    def _chat_request(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> dict[str, Any]:
        return {"messages": as_dicts(self._extend_messages(messages)), **chat_options(self._settings, options)}

    def _prompt_request(self, prompt: str, formatted: bool, options: dict[str, Any]) -> dict[str, Any]:
        assert self.completion_to_prompt is not None, "LlamaIndex fills it in"
        text = prompt if formatted else self._extend_prompt(self.completion_to_prompt(prompt))
        return {"prompt": text, **completion_options(self._settings, options)}

    def _writer(self) -> ResponseWriter:
        return ResponseWriter(self.model, self._engine.tokenizer.token_bytes)

    @property
    def _engine(self) -> Engine | RemoteEngine:
        if self._running is None:
            raise EngineClosedError(f"this MLXAgentLLM of {self.model!r} is closed")
        return self._running

    @property
    def _is_chat_model(self) -> bool:
        return self._engine.tokenizer.chat_template is not None

    @property
    def _settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in SETTINGS & type(self).model_fields.keys()}
        return {name: value for name, value in {**own, **self.additional_kwargs}.items() if value is not None}

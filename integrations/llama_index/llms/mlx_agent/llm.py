"""MLXAgentLLM: LlamaIndex's LLM over one engine; every call, sync or async, chat or prompt, folds one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    prompt_to_messages,
    stream_chat_response_to_completion_response,
)
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
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool

from llama_index.llms.mlx_agent.callbacks import observed_astream, observed_stream
from llama_index.llms.mlx_agent.errors import AnswerError, llm_errors
from llama_index.llms.mlx_agent.messages import as_dicts
from llama_index.llms.mlx_agent.parameters import EngineLLM
from llama_index.llms.mlx_agent.request import chat_options, completion_options
from llama_index.llms.mlx_agent.responses import (
    AsyncDeltas,
    Deltas,
    ResponseWriter,
    astream_responses,
    awhole_response,
    stream_responses,
    whole_response,
)
from llama_index.llms.mlx_agent.tools import as_tool_dict, read_selections, tool_choice_of
from mlx_agent_llm.chat.tools import as_tools, check_parameters, plan_tools
from mlx_agent_llm.constrain.grammars import constraint_grammar


class MLXAgentLLM(EngineLLM):
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

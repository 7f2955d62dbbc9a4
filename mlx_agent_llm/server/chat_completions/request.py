"""The parameters of a chat completion, and what they ask the engine for."""

from __future__ import annotations

from typing import Any, Literal

from mlx_agent_llm.chat.sampling import openai_logprobs
from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.request import JSONSchema
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields
from mlx_agent_llm.server.chat_completions.legacy import tool_choice_of, tools_of
from mlx_agent_llm.server.chat_completions.messages import read_history
from mlx_agent_llm.server.reasoning import thinking_of
from mlx_agent_llm.server.replies import ChatCall
from mlx_agent_llm.server.sampling_fields import SamplingFields


class ChatTemplateKwargs(Fields):
    """The switch of a chat template that may be set from outside."""

    enable_thinking: bool | None = None


class ChatCompletionRequest(SamplingFields):
    """OpenAI's parameters, those of vLLM for the sampler and for constraints, and max_reasoning_tokens.

    Those of the last block are accepted because clients send them, and change nothing here.
    """

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    max_reasoning_tokens: int | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None

    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def is_legacy(self) -> bool:
        """Whether calls are asked for, and answered, as functions."""
        return self.functions is not None

    def call(self) -> ChatCall:
        """The request in the engine's terms."""
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options needs stream=true", "stream_options")
        wanted = None if self.structured_outputs is None else self.structured_outputs.constraint()
        constraint = {} if wanted is None or isinstance(wanted, JSONSchema) else {"constraint": wanted}
        return ChatCall(
            read_history(self.messages),
            self._options(wanted if isinstance(wanted, JSONSchema) else None),
            {**self.sampling(), "logprobs": openai_logprobs(self.logprobs, self.top_logprobs), **constraint},
            self._max_tokens(),
            self.max_reasoning_tokens,
            1 if self.n is None else self.n,
        )

    def _options(self, schema: JSONSchema | None) -> ReplyOptions:
        options = ReplyOptions(
            tools=tools_of(self.tools, self.functions),
            tool_choice=tool_choice_of(self.tool_choice, self.function_call),
            response_format=self._response_format(schema),
            enable_thinking=self._thinking(),
        )
        if self.parallel_tool_calls is not None or self.is_legacy:
            options["parallel_tool_calls"] = bool(self.parallel_tool_calls) and not self.is_legacy
        return options

    def _response_format(self, schema: JSONSchema | None) -> Any:
        if schema is None:
            return self.response_format
        if self.response_format is not None:
            raise invalid("response_format and structured_outputs mean the same: give one", "structured_outputs")
        return schema

    def _thinking(self) -> bool | str | None:
        switch = None if self.chat_template_kwargs is None else self.chat_template_kwargs.enable_thinking
        if switch is not None and self.reasoning_effort is not None:
            raise invalid("reasoning_effort and enable_thinking mean the same: give one", "reasoning_effort")
        return thinking_of(self.reasoning_effort, "reasoning_effort") if switch is None else switch

    def _max_tokens(self) -> int | None:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid("max_tokens and max_completion_tokens mean the same: give one", "max_tokens")
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

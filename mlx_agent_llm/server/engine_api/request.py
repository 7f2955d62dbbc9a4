"""The requests of the engine's own API, in its own terms."""

from __future__ import annotations

from typing import Any

from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields
from mlx_agent_llm.server.replies import ChatCall
from mlx_agent_llm.server.settings import ServerSettings
from mlx_agent_llm.wire import constraint_of_json, params_of_json


class DescribeRequest(Fields):
    """The model that is asked about; it is loaded."""

    model: str


class CountRequest(Fields):
    """Any part of a conversation, and tools."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


class EngineChatRequest(Fields):
    """What Engine.stream_chat takes; response_format is a constraint on JSON, params those of SamplingParams."""

    model: str
    messages: list[dict[str, Any]]
    params: dict[str, Any]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | bool | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    enable_thinking: bool | str | None = None
    documents: list[dict[str, Any]] | None = None
    max_reasoning_tokens: int | None = None

    def call(self) -> ChatCall:
        """The request in the engine's terms."""
        params = params_of_json(self.params)
        if params.n != 1:
            raise invalid(f"params.n={params.n} must be 1", "params.n")
        schema = None if self.response_format is None else constraint_of_json(self.response_format)
        options = ReplyOptions(
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=schema,
            enable_thinking=self.enable_thinking,
            documents=self.documents,
        )
        sampling = {name: value for name, value in vars(params).items() if name not in ("max_tokens", "n")}
        return ChatCall(
            self.messages, options, sampling, params.max_tokens, self.max_reasoning_tokens, needs_results=False
        )


class EngineStreamRequest(Fields):
    """What Engine.stream takes: a prompt is run as it stands."""

    model: str
    prompt: str | list[int]
    params: dict[str, Any]


class EngineGenerateRequest(Fields):
    """What Engine.generate takes: each prompt is run params.n times."""

    model: str
    prompts: list[str | list[int]]
    params: dict[str, Any]

    def sampling(self, settings: ServerSettings) -> SamplingParams:
        """The parameters; an APIError where there are too many outputs."""
        params = params_of_json(self.params)
        for name, count, most in (
            ("params.n", params.n, settings.max_n),
            ("len(prompts)", len(self.prompts), settings.max_prompts),
        ):
            if count > most:
                raise invalid(f"{name}={count} must be at most {most}", name)
        return params

"""The parameters of Anthropic's messages, and what they ask the engine for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields
from mlx_agent_llm.server.messages.blocks import read_history
from mlx_agent_llm.server.reasoning import thinking_of
from mlx_agent_llm.server.replies import ChatCall


class Thinking(Fields):
    """Whether the model thinks before it answers, and for how many tokens at most."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class MessagesTool(Fields):
    """A tool that the client runs."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] | None = None

    def as_function(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema}
        return {"type": "function", "function": function if self.strict is None else function | {"strict": self.strict}}


class ToolChoice(Fields):
    """Which tools a reply may or must call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Fields):
    """The JSON that an answer is."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Fields):
    """The form of an answer, and how much is thought before it."""

    format: OutputFormat | None = None
    effort: str | None = None


class PromptFields(Fields):
    """What becomes the prompt; cache_control is accepted, and changes nothing: all prefixes are cached."""

    model: str
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None

    def history(self) -> list[dict[str, Any]]:
        """The turns in OpenAI's form."""
        return read_history(self.system, self.messages)

    def options(self) -> ReplyOptions:
        """How the reply is made."""
        options = ReplyOptions(
            tools=None if self.tools is None else [tool.as_function() for tool in self.tools],
            enable_thinking=self._enable_thinking(),
        )
        if self.output_config is not None and self.output_config.format is not None:
            schema = self.output_config.format.json_schema
            options["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        if self.tool_choice is not None:
            options["tool_choice"] = self._chosen(self.tool_choice)
            options["parallel_tool_calls"] = not self.tool_choice.disable_parallel_tool_use
        return options

    def call(self) -> ChatCall:
        """The prompt's part of a request in the engine's terms."""
        return ChatCall(self.history(), self.options(), {})

    def _chosen(self, choice: ToolChoice) -> Any:
        if choice.type != "tool":
            return {"any": "required"}.get(choice.type, choice.type)
        if choice.name is None:
            raise invalid("tool_choice.name must be given for tool_choice.type='tool'", "tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}

    def _enable_thinking(self) -> bool | str | None:
        effort = None if self.output_config is None else self.output_config.effort
        if effort is not None:
            return thinking_of(effort, "output_config.effort")
        if self.thinking is None or self.thinking.type == "disabled":
            return False
        return True if self.thinking.type == "enabled" else None


class MessagesRequest(PromptFields):
    """Anthropic's parameters; those of the last block are accepted because clients send them, and change nothing."""

    max_tokens: int
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = None

    def call(self) -> ChatCall:
        """The request in the engine's terms."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "stop": self.stop_sequences}
        sampling = {name: value for name, value in given.items() if value is not None}
        budget = None if self.thinking is None else self.thinking.budget_tokens
        return ChatCall(self.history(), self.options(), sampling, self.max_tokens, budget)


class CountTokensRequest(PromptFields):
    """The parameters of which the prompt is made."""

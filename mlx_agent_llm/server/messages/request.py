"""The parameters of Anthropic's messages, and what they ask the engine for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields
from mlx_agent_llm.server.messages.blocks import NAMES, read_history
from mlx_agent_llm.server.places import Places
from mlx_agent_llm.server.reasoning import thinking_of
from mlx_agent_llm.server.replies import ChatCall


class Thinking(Fields):
    """Whether the model thinks before it answers, for how many tokens at most, and whether its client is shown that."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


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


class ContextEdit(Fields):
    """The one edit of a conversation that leaves it as it is."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"]


class ContextManagement(Fields):
    """How a conversation is edited before the model sees it: it is not."""

    edits: list[ContextEdit] | None = None


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
    context_management: ContextManagement | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether the client is shown what the model thinks."""
        return self.thinking is not None and self.thinking.type != "disabled" and self.thinking.display != "omitted"

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
        """The request in the engine's terms, as far as its prompt goes."""
        turns = read_history(self.system, self.messages)
        return ChatCall([one.turn for one in turns], self.options(), {}, places=Places(turns, NAMES))

    def _chosen(self, choice: ToolChoice) -> Any:
        if choice.type != "tool":
            return {"any": "required"}.get(choice.type, choice.type)
        if choice.name is None:
            raise invalid("tool_choice.name must be given for tool_choice.type='tool'", "tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}

    def _enable_thinking(self) -> bool | str | None:
        kind = None if self.thinking is None else self.thinking.type
        effort = None if self.output_config is None else self.output_config.effort
        if effort is not None and kind != "disabled":
            return thinking_of(effort, "output_config.effort")
        return {None: False, "disabled": False, "enabled": True, "adaptive": None}[kind]


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
    speed: Literal["standard"] | None = None
    inference_geo: str | None = None

    def call(self) -> ChatCall:
        """The request in the engine's terms."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "stop": self.stop_sequences}
        sampling = {name: value for name, value in given.items() if value is not None}
        budget = None if self.thinking is None else self.thinking.budget_tokens
        return replace(super().call(), sampling=sampling, max_tokens=self.max_tokens, max_reasoning_tokens=budget)


class CountTokensRequest(PromptFields):
    """The parameters of which the prompt is made."""

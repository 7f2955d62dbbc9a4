"""The parameters of a response, and what they ask the engine for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mlx_agent_llm.engine.chat_options import ReplyOptions
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields
from mlx_agent_llm.server.places import PlacedTurn, Places
from mlx_agent_llm.server.reasoning import thinking_of
from mlx_agent_llm.server.replies import ChatCall
from mlx_agent_llm.server.responses.items import NAMES, read_items

_EARLIER = "previous_response_id"
LOGPROBS = "message.output_text.logprobs"
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",  # reasoning comes in the open
    "message.input_image.image_url",  # this and all below: of items that are never here
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class TextFormat(Fields):
    """The form of an answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def response_format(self) -> dict[str, Any]:
        """The format in the form of chat completions."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"schema": self.json_schema, "strict": self.strict}}


class TextOptions(Fields):
    """How an answer is written; verbosity is accepted, and changes nothing."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Fields):
    """How much is thought; summary is accepted: what was thought is shown as it is."""

    effort: str | None = None
    summary: str | None = None


class ResponseTool(Fields):
    """A function that the client runs."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_function(self) -> dict[str, Any]:
        """The tool in the form of chat completions."""
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class ResponseRequest(Fields):
    """OpenAI's parameters; those of the last block are accepted because clients send them, and change nothing."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    include: list[Includable] | None = None

    user: str | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    stream_options: dict[str, Any] | None = None
    client_metadata: dict[str, Any] | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether text comes with its log-probabilities."""
        return self.top_logprobs is not None or LOGPROBS in (self.include or ())

    def turns(self, earlier: Sequence[dict[str, Any]]) -> list[PlacedTurn]:
        """The conversation that is remembered for later requests: the earlier turns and this input's."""
        calls = [len(turn.get("tool_calls", ())) for turn in earlier]
        before = [PlacedTurn(turn, _EARLIER, (_EARLIER,) * count) for turn, count in zip(earlier, calls, strict=True)]
        return [*before, *read_items(self.input)]

    def call(self, turns: Sequence[PlacedTurn]) -> ChatCall:
        """The request in the engine's terms; instructions hold for this response only."""
        if self.instructions is not None:
            turns = [PlacedTurn({"role": "system", "content": self.instructions}, "instructions"), *turns]
        given = {"temperature": self.temperature, "top_p": self.top_p}
        sampling: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.wants_logprobs:
            sampling["logprobs"] = self.top_logprobs or 0
        messages = [one.turn for one in turns]
        return ChatCall(messages, self._options(), sampling, self.max_output_tokens, places=Places(turns, NAMES))

    def _options(self) -> ReplyOptions:
        options = ReplyOptions(
            tools=None if self.tools is None else [tool.as_function() for tool in self.tools],
            tool_choice=self._tool_choice(),
        )
        if self.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = self.parallel_tool_calls
        if self.text is not None and self.text.format is not None:
            options["response_format"] = self.text.format.response_format()
        if self.reasoning is not None:
            options["enable_thinking"] = thinking_of(self.reasoning.effort, "reasoning.effort")
        return options

    def _tool_choice(self) -> Any:
        choice = self.tool_choice
        if not isinstance(choice, dict):
            return choice
        match choice.get("type"):
            case "function":
                return {"type": "function", "function": {"name": choice.get("name")}}
            case "allowed_tools":
                tools = [{"type": "function", "function": tool} for tool in choice.get("tools") or ()]
                return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
            case kind:
                raise invalid(f"tool_choice.type={kind!r} must be 'function' or 'allowed_tools'", "tool_choice")

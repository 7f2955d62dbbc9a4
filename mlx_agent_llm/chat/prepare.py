"""From messages and tools to what the engine runs: the prompt's tokens, the constraint and the reply's parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.chat.messages import read_messages
from mlx_agent_llm.chat.output import ChatDelta, ToolCall
from mlx_agent_llm.chat.response_format import Parsed, ResponseFormat, read_response_format
from mlx_agent_llm.chat.template import render_prompt
from mlx_agent_llm.chat.tool_formats import TOOL_FORMATS, CallParser
from mlx_agent_llm.chat.tools import as_tools, plan_tools
from mlx_agent_llm.constrain.spec import Constraint
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import Delta

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer


class ChatParser:
    """Turns the Deltas of one request into ChatDeltas."""

    def __init__(self, call_parser: CallParser, response: ResponseFormat | None) -> None:
        self._call_parser = call_parser
        self._response = response
        self._text: list[str] = []
        self._has_calls = False

    def feed(self, delta: Delta) -> list[ChatDelta]:
        """Return what one Delta adds; the last one, with a finish_reason, also gives what was held back and the end."""
        deltas = self._noted(self._call_parser.feed(delta.text))
        if delta.finish_reason is not None:
            deltas += self._noted(self._call_parser.end(cut_off=delta.finish_reason == "length"))
            deltas.append(self._end(delta))
        return deltas

    def _end(self, delta: Delta) -> ChatDelta:
        ended = delta.finish_reason == "stop"
        parsed = self._parse() if ended and not self._has_calls else Parsed()
        return ChatDelta(
            finish_reason="tool_calls" if ended and self._has_calls else delta.finish_reason,
            usage=delta.usage,
            timings=delta.timings,
            parsed=parsed.value,
            parse_error=parsed.error,
        )

    def _noted(self, deltas: list[ChatDelta]) -> list[ChatDelta]:
        self._text += [delta.text for delta in deltas]
        self._has_calls = self._has_calls or any(isinstance(delta.finished_call, ToolCall) for delta in deltas)
        return deltas

    def _parse(self) -> Parsed:
        return Parsed() if self._response is None else self._response.parse("".join(self._text))


@dataclass(frozen=True)
class PreparedChat:
    """A chat request, ready to be submitted; the parser belongs to one reply."""

    prompt_token_ids: list[int]
    constraint: Constraint | None
    parser: ChatParser


def prepare_chat(
    tokenizer: Tokenizer,
    messages: Any,
    *,
    tools: Any = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool = True,
    response_format: Any = None,
) -> PreparedChat:
    """Check a chat request and turn it into tokens, a constraint and a parser.

    With tools and response_format the reply is calls, or else the JSON; with a tool_choice that requires a call it is
    calls alone. Raises RequestError, ToolChoiceError, UnsupportedSchemaError or ConstraintError.
    """
    if tokenizer.chat_template is None:
        raise RequestError("the model has no chat template: give a prompt to generate instead of messages to chat")
    turns = read_messages(messages)
    plan = plan_tools(as_tools(tools), tool_choice, parallel_tool_calls)
    response = read_response_format(response_format)
    schema = None if response is None else response.constraint
    tool_format = TOOL_FORMATS["generic_json"]
    return PreparedChat(
        render_prompt(tokenizer, turns, plan.shown, schema, tool_format),
        tool_format.constraint(plan, schema),
        ChatParser(tool_format.parser(plan, schema), response),
    )

"""What a tool format is: how one family of models is told of tools, calls them and gets results."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import InvalidToolCall, ToolCall, new_call_id
from mlx_agent_llm.chat.reply.grammar import ReplyGrammar
from mlx_agent_llm.chat.reply.reader import ReplyReader, Where
from mlx_agent_llm.chat.reply.syntax import THINK, CallSyntax, Reasoning, control_tokens
from mlx_agent_llm.chat.tools import Tool, ToolPlan, tool_json
from mlx_agent_llm.constrain.grammars import GrammarConstraint
from mlx_agent_llm.constrain.reasoning import Block, Thinking, ThinkingTracker
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.errors import ToolChoiceError
from mlx_agent_llm.request.constraints import Constraint, JSONSchema

_SHORT_ID = re.compile("[A-Za-z0-9]{9}")
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
GENERAL_PROMPT = (
    "You can call these tools:\n{tools}\n\n"
    "To call a tool, write {example} with the name of the tool and arguments that fit its parameters. "
    "The result comes back between <tool_response> and </tool_response>."
)


@dataclass(frozen=True)
class ParsedMessage:
    """A whole reply, taken apart. A call that is broken, or not valid for its tool, is among invalid_tool_calls."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()


@dataclass(frozen=True)
class ToolFormat:
    """The wire form of one family of models.

    signs: texts that the chat templates of the family hold, all of them. text_begin, text_end: marks around text and
    answers. not_in_text: control tokens that free text must not hold. calls_beside_json: how calls are written where a
    JSON answer is possible, too, and could be taken for one. tools_in_system: whether templates take the tools as a
    field of the system turn. ids: the kind of ids that the templates want. prompt: how a model is told of tools whose
    template has no place for them.
    """

    name: str
    calls: CallSyntax
    signs: tuple[str, ...] = ()
    reasoning: Reasoning | None = THINK
    text_begin: str = ""
    text_end: str = ""
    not_in_text: tuple[str, ...] = ()
    calls_beside_json: CallSyntax | None = None
    tools_in_system: bool = False
    names_are_identifiers: bool = False
    ids: Literal["unique", "short", "numbered"] = "unique"
    prompt: str = GENERAL_PROMPT

    @cached_property
    def markers(self) -> frozenset[str]:
        """The texts that may be control tokens of a model's vocabulary, and that its replies hold."""
        marks = self.reasoning
        thinking = (marks.begin, marks.end, marks.bridge) if marks else ()
        return control_tokens((*self.calls.literals, self.text_begin, self.text_end, *thinking))

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedMessage:
        """Take a whole reply apart: the fold of what `stream_parser` gives."""
        reader = self.stream_parser(tools)
        deltas = reader.feed(text) + reader.finish()
        calls = [delta.finished_call for delta in deltas if delta.finished_call is not None]
        return ParsedMessage(
            "".join(delta.text for delta in deltas),
            "".join(delta.reasoning for delta in deltas),
            tuple(call for call in calls if isinstance(call, ToolCall)),
            tuple(call for call in calls if isinstance(call, InvalidToolCall)),
        )

    def stream_parser(
        self,
        tools: Sequence[Tool],
        *,
        calls: Where = "anywhere",
        thinking: Thinking = "auto",
        num_earlier_calls: int = 0,
    ) -> ReplyReader:
        """Return a reader of one reply, to be fed with its text as it comes."""
        return ReplyReader(self, tools, calls=calls, thinking=thinking, num_earlier_calls=num_earlier_calls)

    def reply_parser(
        self, plan: ToolPlan, response: JSONSchema | None, thinking: Thinking, num_earlier_calls: int = 0
    ) -> ReplyReader:
        """Return a reader of a reply under `constraint` for the same arguments."""
        is_first = response is not None or plan.mode == "required"
        where: Where = "nowhere" if plan.mode == "none" else "start" if is_first else "anywhere"
        written = self._beside_json(plan, response)
        return written.stream_parser(plan.callable, calls=where, thinking=thinking, num_earlier_calls=num_earlier_calls)

    def constraint(self, plan: ToolPlan, response: JSONSchema | None, thinking: Thinking) -> Constraint | None:
        """Return what the reply must be; None when anything goes."""
        if not plan.shown and (response is None or (thinking == "none" and not self.text_begin)):
            return response
        content = [
            repr(self),
            plan.mode,
            plan.single,
            [[tool.name, tool.parameters] for tool in plan.callable],
            None if response is None else [response.json_schema, response.strict],
            thinking,
        ]
        text = json.dumps(content, ensure_ascii=False)
        return GrammarConstraint(lambda: self.reply_grammar(plan, response, thinking).build(), text)

    def reply_grammar(self, plan: ToolPlan, response: JSONSchema | None, thinking: Thinking) -> ReplyGrammar:
        """Return what builds the grammar of a reply."""
        return ReplyGrammar(self._beside_json(plan, response), plan, response, thinking)

    def _beside_json(self, plan: ToolPlan, response: JSONSchema | None) -> ToolFormat:
        if response is None or plan.mode != "auto" or self.calls_beside_json is None:
            return self
        return replace(self, calls=self.calls_beside_json)

    def thinking_tracker(self, thinking: Thinking, text_of: Callable[[int], bytes]) -> ThinkingTracker | None:
        """Return what counts the tokens of reasoning; None where there is none."""
        if self.reasoning is None:
            return None
        block = Block(self.reasoning.begin.encode(), self.reasoning.end.encode())
        return ThinkingTracker(block, thinking, text_of)

    def check_names(self, tools: Sequence[Tool]) -> None:
        """Raise a ToolChoiceError when two names would be written alike."""
        written: dict[str, str] = {}
        for tool in tools:
            other = written.setdefault(self.write_name(tool.name), tool.name)
            if other != tool.name:
                raise ToolChoiceError(
                    f"tools {other!r} and {tool.name!r} are written alike in the format {self.name!r}"
                )

    def write_name(self, name: str) -> str:
        """Return the name of a tool as the format writes it."""
        if not self.names_are_identifiers:
            return name
        identifier = re.sub("[^A-Za-z0-9_]", "_", name)
        return f"_{identifier}" if identifier[0].isdigit() else identifier

    def new_id(self, name: str, index: int) -> str:
        """Return an id for a call, the index-th one of the conversation."""
        if self.ids == "numbered":
            return f"functions.{name}:{index}"
        if self.ids == "short":
            return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(9))
        return new_call_id()

    def template_id(self, call: ToolCall, index: int) -> str:
        """Return the id of an earlier call in a form that the templates of the family take."""
        if self.ids == "numbered":
            return f"functions.{self.write_name(call.name)}:{index}"
        if self.ids == "short" and not _SHORT_ID.fullmatch(call.id):
            return hashlib.blake2b(call.id.encode(errors="surrogatepass"), digest_size=8).hexdigest()[:9]
        return call.id

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Return the tools, one JSON a line, and how to call them; the same for the same tools."""
        listed = "\n".join(tool_json(self._renamed(tool)) for tool in tools)
        syntax = self.calls
        begin, end = syntax.section_begin + syntax.begin, syntax.end + syntax.section_end
        example = begin + syntax.body.example() + end
        return self.prompt.replace("{tools}", listed).replace("{example}", example)

    def template_tools(self, tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """Return the tools as chat templates take them."""
        return [{"type": "function", "function": _function(self._renamed(tool))} for tool in tools]

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """Return calls as the model writes them."""
        syntax = self.calls
        written = [
            syntax.begin + syntax.body.write(self.write_name(call.name), call.arguments, index) + syntax.end
            for index, call in enumerate(calls)
        ]
        return syntax.section_begin + syntax.separator.join(written) + syntax.section_end if calls else ""

    def plain_message(self, message: Message) -> dict[str, Any]:
        """Return a turn for a template that knows no tools: calls after the text, a tool's result as a user turn."""
        if message.role == "tool":
            return {"role": "user", "content": f"<tool_response>{message.content}</tool_response>"}
        return _turn(message, message.content + self.write_calls(message.tool_calls))

    def with_tools(self, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """Return the messages for a template that shows tools, with the tools where it takes them from a turn."""
        if not self.tools_in_system or not tools:
            return messages
        has_system = messages[0]["role"] == "system"
        first = messages[0] if has_system else {"role": "system", "content": ""}
        listed = [_function(self._renamed(tool)) for tool in tools]
        return [{**first, "tools": write_json(listed)}, *messages[has_system:]]

    def template_message(
        self, message: Message, ids: Mapping[str, str], names: Mapping[str, str], arguments_as_text: bool
    ) -> dict[str, Any]:
        """Return a turn for a template that shows calls; ids and names are those of earlier calls, by their ids."""
        turn = _turn(message, message.content)
        if message.tool_calls:
            turn["tool_calls"] = [
                self._template_call(call, ids[call.id], arguments_as_text) for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            turn["tool_call_id"] = ids.get(message.tool_call_id, message.tool_call_id)
            turn["name"] = names.get(message.tool_call_id, "")
        return turn

    def _template_call(self, call: ToolCall, call_id: str, arguments_as_text: bool) -> dict[str, Any]:
        arguments = call.arguments_json if arguments_as_text else call.arguments
        function = {"name": self.write_name(call.name), "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    def _renamed(self, tool: Tool) -> Tool:
        return Tool(self.write_name(tool.name), tool.description, tool.parameters)


def _turn(message: Message, content: str) -> dict[str, Any]:
    reasoning = {"reasoning_content": message.reasoning} if message.reasoning else {}
    return {"role": message.role, "content": content, **reasoning}


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}

"""A reply that is asked for, and what is made for it: its reader, its grammar, and what is checked when it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlx_agent_llm.chat.output import ParsedMessage
from mlx_agent_llm.chat.reply.channel_reader import ChannelReader
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.free_text import ReplyText
from mlx_agent_llm.chat.reply.grammar import ReplyGrammar
from mlx_agent_llm.chat.reply.reader import ReplyReader, Where
from mlx_agent_llm.chat.tools import Tool, ToolPlan
from mlx_agent_llm.constrain.grammars import Check, GrammarConstraint, Verdict, judge_json
from mlx_agent_llm.constrain.reasoning import Block, Thinking, ThinkingTracker
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.request.constraints import Constraint, JSONSchema


@dataclass(frozen=True)
class ExpectedReply:
    """A reply in `tool_format`: `plan` says which calls it may or must make, `response` which JSON it may be instead.

    thinking: whether it begins with reasoning. num_earlier_calls: the calls of the conversation so far.
    """

    tool_format: ToolFormat
    plan: ToolPlan
    response: JSONSchema | None = None
    thinking: Thinking = "none"
    num_earlier_calls: int = 0

    def reader(self) -> ReplyReader:
        """A new reader of such a reply, to be fed with its text as it comes."""
        is_first = self.response is not None or self.plan.mode == "required"
        where: Where = "nowhere" if self.plan.mode == "none" else "start" if is_first else "anywhere"
        return make_reader(
            self._written_format(),
            self.plan.callable,
            calls=where,
            thinking=self.thinking,
            num_earlier_calls=self.num_earlier_calls,
        )

    def grammar(self) -> ContextFreeGrammar:
        """The grammar of such replies; a ConstraintError where the format cannot write what a tool asks for."""
        return ReplyGrammar(self._written_format(), self.plan, self.response, self.thinking).build()

    def constraint(self) -> Constraint | None:
        """What the reply must be; None when anything goes."""
        has_marks = self.thinking != "none" or self.tool_format.text_begin
        if not self.plan.shown and (self.response is None or not has_marks):
            return self.response
        return GrammarConstraint(self.grammar, self._content(), self._check())

    def thinking_tracker(self, text_of: Callable[[int], bytes]) -> ThinkingTracker | None:
        """What counts the tokens of reasoning, by the text of each; None where there is none."""
        marks = self.tool_format.reasoning
        if marks is None:
            return None
        return ThinkingTracker(Block(marks.begin.encode(), marks.end.encode()), self.thinking, text_of)

    @property
    def has_free_text(self) -> bool:
        """Whether any of it is neither reasoning nor what a schema says."""
        return self.response is None and self.plan.mode != "required"

    def free_text(self) -> ReplyText:
        """A new finder of the free text in such a reply."""
        return ReplyText(self.tool_format, self.thinking, may_call=self.plan.mode == "auto")

    def _written_format(self) -> ToolFormat:
        """The format with calls that no JSON answer is taken for."""
        calls = self.tool_format.calls_beside_json
        if self.response is None or self.plan.mode != "auto" or calls is None:
            return self.tool_format
        return replace(self.tool_format, calls=calls)

    def _content(self) -> str:
        """What the grammar depends on, as text."""
        tools = [[tool.name, tool.parameters, tool.strict] for tool in self.plan.callable]
        response = None if self.response is None else self.response.key
        content = [repr(self.tool_format), self.plan.mode, self.plan.single, tools, response, self.thinking]
        return json.dumps(content, ensure_ascii=False)

    def _check(self) -> Check | None:
        """What the grammar leaves out of tools and of the answer."""
        lenient = [JSONSchema(tool.parameters, strict=False) for tool in self.plan.callable if not tool.strict]
        if self._checked_response is not None:
            lenient.append(self._checked_response)
        return Check(tuple(lenient), self._judge) if lenient else None

    @property
    def _checked_response(self) -> JSONSchema | None:
        is_checked = self.response is not None and not self.response.strict and self.plan.mode != "required"
        return self.response if is_checked else None

    def _judge(self, text: str) -> Verdict:
        """Whether a whole reply has calls that are valid for their tools, or else a valid answer."""
        reader = self.reader()
        message = ParsedMessage.of(reader.feed(text) + reader.finish())
        if message.invalid_tool_calls:
            return Verdict(True, message.invalid_tool_calls[0].error)
        names = {tool.name for tool in self.plan.callable if not tool.strict}
        if message.tool_calls or self._checked_response is None:
            return Verdict(any(call.name in names for call in message.tool_calls))
        return judge_json(self._checked_response, message.content)


def make_reader(
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    *,
    calls: Where = "anywhere",
    thinking: Thinking = "auto",
    num_earlier_calls: int = 0,
) -> ReplyReader:
    """A new reader of one reply; the options are those of ReplyReader."""
    kind = ChannelReader if tool_format.in_channels else ReplyReader
    return kind(tool_format, tools, calls=calls, thinking=thinking, num_earlier_calls=num_earlier_calls)


def parse_reply(tool_format: ToolFormat, text: str, tools: Sequence[Tool]) -> ParsedMessage:
    """A whole reply of any kind, taken apart."""
    reader = make_reader(tool_format, tools)
    return ParsedMessage.of(reader.feed(text) + reader.finish())

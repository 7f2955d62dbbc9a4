"""What a tool format is: the marks with which one family of models writes reasoning, text and calls, as data."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mlx_agent_llm.chat.output import ToolCall, new_call_id
from mlx_agent_llm.chat.reply.syntax import THINK, CallSyntax, Reasoning, control_tokens
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.errors import ToolChoiceError

_SHORT_ID = re.compile("[A-Za-z0-9]{9}")
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
GENERAL_PROMPT = (
    "You can call these tools:\n{tools}\n\n"
    "To call a tool, write {example} with the name of the tool and arguments that fit its parameters. "
    "The result comes back between <tool_response> and </tool_response>."
)


@dataclass(frozen=True)
class ToolFormat:
    """The wire form of one family of models.

    signs: texts that the chat templates of the family hold, all of them. text_begin, text_end: marks around text and
    answers. not_in_text: control tokens that free text must not hold. in_channels: whether a reply is one message after
    another, each with a header. preamble: the marks around a text to the user in a message before the reply.
    calls_beside_json: how calls are written where a JSON answer is possible, too, and could be taken for one.
    tools_in_system: whether templates take the tools as a field of the system turn. ids: the kind of ids that the
    templates want. prompt: how a model is told of tools whose template has no place for them.
    """

    name: str
    calls: CallSyntax
    signs: tuple[str, ...] = ()
    reasoning: Reasoning | None = THINK
    text_begin: str = ""
    text_end: str = ""
    not_in_text: tuple[str, ...] = ()
    in_channels: bool = False
    preamble: tuple[str, str] | None = None
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

    def write_calls(self, calls: Sequence[ToolCall], first: int = 0) -> str:
        """The calls as the model writes them; `first`: the number of the first one in the conversation."""
        syntax = self.calls
        texts = [
            self._begin(call.id) + syntax.body.write(self.write_name(call.name), call.arguments, index) + syntax.end
            for index, call in enumerate(calls, first)
        ]
        return syntax.section_begin + syntax.separator.join(texts) + syntax.section_end if calls else ""

    def example(self) -> str:
        """A call for instructions."""
        syntax = self.calls
        return syntax.section_begin + self._begin("id") + syntax.body.example() + syntax.end + syntax.section_end

    def _begin(self, call_id: str) -> str:
        return self.calls.begin.replace("{id}", call_id).replace("{server}", "tools")

    def write_name(self, name: str) -> str:
        """The name of a tool as the format writes it."""
        if not self.names_are_identifiers:
            return name
        identifier = re.sub("[^A-Za-z0-9_]", "_", name)
        return f"_{identifier}" if identifier[0].isdigit() else identifier

    def check_names(self, tools: Sequence[Tool]) -> None:
        """Raise a ToolChoiceError when two names would be written alike."""
        known: dict[str, str] = {}
        for tool in tools:
            other = known.setdefault(self.write_name(tool.name), tool.name)
            if other != tool.name:
                raise ToolChoiceError(
                    f"tools {other!r} and {tool.name!r} are written alike in the format {self.name!r}"
                )

    def new_id(self, name: str, index: int) -> str:
        """A new id for a call, the index-th one of the conversation."""
        if self.ids == "numbered":
            return f"functions.{name}:{index}"
        if self.ids == "short":
            return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(9))
        return new_call_id()

    def template_id(self, call: ToolCall, index: int) -> str:
        """The id of an earlier call in a form that the templates of the family take."""
        if self.ids == "numbered":
            return f"functions.{self.write_name(call.name)}:{index}"
        if self.ids == "short" and not _SHORT_ID.fullmatch(call.id):
            return hashlib.blake2b(call.id.encode(errors="surrogatepass"), digest_size=8).hexdigest()[:9]
        return call.id

"""Small chats with tools and calls, as one chat template renders them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mlx_agent_llm.chat.derive.units import common_beginning, units
from mlx_agent_llm.errors import RequestError

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

Arguments = Literal["objects", "texts"]
"""As what a template takes the arguments of calls."""
PlaceOfText = Literal["same turn", "turn before"]
Call = tuple[str, dict[str, Any]]
Turn = dict[str, Any]

QUESTION, ANSWER, BESIDE, THOUGHT, RESULTS = "questiontext", "answertext", "besidetext", "thoughttext", ("gone", "went")
IDS = ("pr0be0001", "pr0be0002")
_UNKNOWN_ROLE = "pr0berole"
_CONSTANTS = ("true", "false", "null")
_SWITCHES = ("enable_thinking", "thinking")


def _property(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": "A sample.", **more}


def _tool(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "Probes.", "parameters": parameters}}


_SCALARS = {"alpha": _property("string"), "beta": _property("integer")}
_STRUCTURES = {
    "gamma": _property("boolean"),
    "delta": _property("array", items={"type": "string"}),
    "epsilon": _property("object", properties={"inner": {"type": "string", "description": "A sample."}}),
}
LAST: Call = ("probe_two", {"zeta": "other", "theta": "last"})
_SECOND_TOOL = _tool("probe_two", {"zeta": _property("string"), "theta": _property("string")})


@dataclass(frozen=True)
class Probe:
    """Two tools and a call of the first one."""

    first: Call
    tools: tuple[dict[str, Any], ...]


RICH = Probe(
    (
        "probe_one",
        {"alpha": "sample", "beta": 735, "gamma": True, "delta": ["item"], "epsilon": {"inner": "deep"}},
    ),
    (_tool("probe_one", _SCALARS | _STRUCTURES), _SECOND_TOOL),
)
PLAIN = Probe(("probe_one", {"alpha": "sample", "beta": 735}), (_tool("probe_one", _SCALARS), _SECOND_TOOL))


@dataclass(frozen=True)
class Probing:
    """Chats with the calls of a probe, as a tokenizer's template renders them; "" where it refuses one.

    arguments: as what it takes those of calls. shows_tools: whether it gets the tools; in_system: within the turn of
    the system; in_variables: as text in a variable of its own. numbered_ids: whether ids are names with numbers.
    without_content: whether a turn of calls has None as its text, where it has none.
    """

    tokenizer: Tokenizer
    probe: Probe
    arguments: Arguments
    shows_tools: bool = True
    in_system: bool = False
    in_variables: bool = False
    numbered_ids: bool = False
    without_content: bool = False

    @cached_property
    def one(self) -> str:
        """What the assistant writes for the first call."""
        return self.native([self.probe.first])

    @cached_property
    def two(self) -> str:
        """What it writes for two calls; "" where the template shows but one, or refuses them."""
        return self.native([self.probe.first, LAST])

    @cached_property
    def has_tools(self) -> bool:
        """Whether a prompt shows the tools."""
        shown = self.render([_user()], prompt=True)
        return all(word in shown for word in ("probe_one", "probe_two", "alpha", "zeta"))

    @cached_property
    def has_result(self) -> bool:
        """Whether the result of a call is shown when nothing follows it."""
        turns = [_user(), self._assistant([self.probe.first]), self._result(0, "probe_one")]
        return RESULTS[0] in self.render(turns, prompt=True)

    @cached_property
    def has_result_of_text(self) -> bool:
        """Whether the result of a call is shown that is a part of a turn's text.

        A template that knows no tools and writes the turns of all roles alike is none of a model that knows results.
        """
        result = self._result(0, "probe_one")
        shown, unknown = (
            self.render([_user(), _answer(), result | {"role": role}], prompt=True) for role in ("tool", _UNKNOWN_ROLE)
        )
        return RESULTS[0] in shown and (self.has_tools or shown != unknown.replace(_UNKNOWN_ROLE, "tool"))

    @cached_property
    def refusal(self) -> str:
        """What the template says to a chat of one question; "" where it renders it."""
        try:
            self.tokenizer.apply_chat_template([_user()])
        except RequestError as error:
            return str(error)
        return ""

    @cached_property
    def has_two_results(self) -> bool:
        """Whether two calls of one turn are shown with their results."""
        return bool(self.two) and all(result in self._history([self.probe.first, LAST]) for result in RESULTS)

    @cached_property
    def place_of_text(self) -> PlaceOfText | None:
        """Where text beside a call is shown: in its turn, in one before it, or nowhere."""
        if BESIDE in self._history([self.probe.first], BESIDE):
            return "same turn"
        turns = [_user(), {"role": "assistant", "content": BESIDE}, self._assistant([self.probe.first])]
        apart = self.render([*turns, self._result(0, self.probe.first[0]), _answer(), _user()])
        return "turn before" if BESIDE in apart else None

    @cached_property
    def has_system(self) -> bool:
        """Whether a turn of the system is shown."""
        return THOUGHT in self.render([{"role": "system", "content": THOUGHT}, _user()], prompt=True)

    @cached_property
    def has_later_systems(self) -> bool:
        """Whether a turn of the system is shown after others, beside one at the beginning."""
        first, later = ({"role": "system", "content": text} for text in (BESIDE, THOUGHT))
        shown = self.render([first, _user(), _answer(), later, _user()], prompt=True)
        return BESIDE in shown and THOUGHT in shown

    @cached_property
    def wants_list(self) -> bool:
        """Whether chats without tools are refused, unless their list is an empty one."""
        try:
            return not self.tokenizer.apply_chat_template([_user()], tools=None)
        except RequestError:
            return not self.in_variables

    @cached_property
    def switch(self) -> str | None:
        """The option that changes what prompts say of reasoning."""
        return next((name for name in _SWITCHES if self._prompt(name, True) != self._prompt(name, False)), None)

    @cached_property
    def wants_short_ids(self) -> bool:
        """Whether calls with long ids are refused."""
        return not self.render([_user(), self._assistant([self.probe.first], call_id="call_" + 32 * "0"), _user()])

    def text_turn(self, content: str, **keys: str) -> str:
        """A last turn of the assistant, with what stands around it."""
        return self.render([_user(), {"role": "assistant", "content": content, **keys}]).partition(QUESTION)[2]

    def render(self, turns: Sequence[Turn], *, prompt: bool = False, **options: Any) -> str:
        """The turns as text; "" where the template refuses them."""
        tools = self.probe.tools if self.shows_tools else None
        if self.in_system and tools:
            listed = json.dumps([tool["function"] for tool in tools or ()])
            turns = [{"role": "system", "content": "", "tools": listed}, *turns]
        if self.in_variables:
            options |= tool_variables([tool["function"] for tool in tools or ()])
        try:
            return self.tokenizer.apply_chat_template(turns, tools=tools, add_generation_prompt=prompt, **options)
        except RequestError:
            return ""

    @cached_property
    def text_lead(self) -> str:
        """What the assistant writes before a text."""
        turn = self._text_turn.partition(ANSWER)[0]
        return turn[len(self._header(turn)) :]

    @cached_property
    def text_tail(self) -> str:
        """What follows a text up to the next turn's text."""
        return self._text_turn.partition(ANSWER)[2].partition(QUESTION)[0]

    @cached_property
    def text_end(self) -> str:
        """What the assistant writes after a text, before the token that ends its reply."""
        end = self._end(self.text_tail, 0)
        return self.text_tail[:end].rstrip() if end is not None else ""

    def calls_alone(self, text: str) -> str:
        """A rendered turn of calls without what stands before texts, too, but with the blanks before the calls."""
        return text.removeprefix(common_beginning(text, self.text_lead.rstrip()))

    @cached_property
    def prompt_end(self) -> str:
        """What a prompt ends with, from after the last turn's text on."""
        return self.render([_user()], prompt=True).rpartition(QUESTION)[2]

    @cached_property
    def _text_turn(self) -> str:
        return self.render([_user(), _answer(), _user()]).partition(QUESTION)[2]

    def _header(self, turn: str) -> str:
        """How the turn begins before the assistant writes."""
        return self.prompt_end if turn.startswith(self.prompt_end) else common_beginning(turn, self.prompt_end)

    def _end(self, turn: str, begin: int) -> int | None:
        """Where the first token after `begin` stands that ends replies."""
        names = self.tokenizer.special_token_texts
        ends = [names[token] for token in self.tokenizer.eos_token_ids if token in names]
        found = [index for end in ends if (index := turn.find(end, begin)) >= 0]
        return min(found, default=None)

    def native(self, calls: Sequence[Call]) -> str:
        """What the assistant writes, without the header and the end of its turn; "" where a call is not shown."""
        turn = self._history(calls).partition(QUESTION)[2].partition(RESULTS[0])[0]
        words = _words(calls[-1][1])
        if not all(word in turn for name, arguments in calls for word in (name, *_words(arguments))):
            return ""
        if '\\"alpha' in turn or "\\'alpha" in turn:
            return ""
        begin = turn.rfind(words[-1])
        end = self._end(turn, begin)
        if end is None:  # what follows the turn is no part of it, whatever it is
            for others in ([], [_user()]):
                other = self.render([_user(), self._assistant(calls), *others]).partition(QUESTION)[2]
                common = common_beginning(turn, other)
                turn = common if words[-1] in common else turn
            behind = next((unit for unit in units(self.text_tail) if unit.strip()), "")
            end = turn.find(behind, begin) if behind and behind in turn[begin:] else len(turn)
        return turn[len(self._header(turn)) : end]

    def _history(self, calls: Sequence[Call], content: str = "") -> str:
        results = [self._result(index, name) for index, (name, _) in enumerate(calls)]
        return self.render([_user(), self._assistant(calls, content), *results, _answer(), _user()])

    def _result(self, index: int, name: str) -> Turn:
        return {"role": "tool", "tool_call_id": self._id(index, name), "name": name, "content": RESULTS[index]}

    def _id(self, index: int, name: str) -> str:
        return f"functions.{name}:{index}" if self.numbered_ids else IDS[index]

    def _prompt(self, name: str, value: bool) -> str:
        return self.render([_user()], prompt=True, **{name: value})

    def _assistant(self, calls: Sequence[Call], content: str = "", call_id: str = "") -> Turn:
        written = [
            {
                "id": call_id or self._id(index, name),
                "type": "function",
                "function": {"name": name, "arguments": given if self.arguments == "objects" else json.dumps(given)},
            }
            for index, (name, given) in enumerate(calls)
        ]
        text = None if self.without_content and not content else content
        return {"role": "assistant", "content": text, "tool_calls": written}


def tool_variables(functions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The variables of templates that take the tools as a text: the tools and today's date."""
    return {"functions": json.dumps(functions, ensure_ascii=False), "datetime": date.today().isoformat()}


def _words(value: Any) -> list[str]:
    """The words that every way of writing a value holds."""
    return [word for word in re.findall(r"\w{3,}", json.dumps(value, ensure_ascii=False)) if word not in _CONSTANTS]


def _user() -> Turn:
    return {"role": "user", "content": QUESTION}


def _answer() -> Turn:
    return {"role": "assistant", "content": ANSWER}

"""A reply as a grammar: reasoning, and then text, calls or a JSON answer, whatever was asked for."""

from __future__ import annotations

import re

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning
from mlx_agent_llm.chat.tools import Tool, ToolPlan
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.constrain.schema import JSONNotation, schema_rules
from mlx_agent_llm.languages.context_free import (
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    TextNode,
    choice,
    sequence,
)
from mlx_agent_llm.languages.regex import parse_full_match
from mlx_agent_llm.languages.regular import (
    ANY_TEXT,
    Language,
    complement,
    concat,
    first_match,
    intersection,
    literal,
    nothing,
    repeat,
    union,
    without,
)
from mlx_agent_llm.request.constraints import JSONSchema

_PLACES = {
    "{index}": PatternNode(parse_full_match("[0-9]{1,3}")),
    "{id}": PatternNode(parse_full_match("[A-Za-z0-9_-]{1,40}")),
    "{server}": PatternNode(parse_full_match("[A-Za-z0-9_.-]{1,64}")),
}
_LINE_BREAKS = parse_full_match(r"\n{0,2}")
_BLANKS = parse_full_match(r"[ \t\n\r]*")


class ReplyGrammar:
    """Builds the grammar of one reply; `plan` says which calls it may or must make, `response` which JSON it may be."""

    def __init__(
        self, tool_format: ToolFormat, plan: ToolPlan, response: JSONSchema | None, thinking: Thinking
    ) -> None:
        self._format = tool_format
        self._syntax = tool_format.calls
        self._plan = plan
        self._response = response
        self._thinking: Thinking = "none" if tool_format.reasoning is None else thinking
        self._rules: dict[str, Node] = {}

    def build(self) -> ContextFreeGrammar:
        """The grammar; a ConstraintError where the format cannot write the name of a parameter."""
        return ContextFreeGrammar(self._with_reasoning(self._body()), self._rules, self._format.markers)

    def _body(self) -> Node:
        """What follows the reasoning."""
        if self._plan.mode == "required":
            return choice(self._calls(syntax) for syntax in self._syntax.spellings)
        if self._response is not None:
            begin, end = TextNode(self._format.text_begin), TextNode(self._format.text_end)
            answer = sequence(begin, self._json(self._response), end)
            return answer if self._plan.mode == "none" else choice([self._led_calls(), answer])
        if self._plan.mode == "none":
            return self._text()
        if self._syntax.opening or self._format.text_begin:
            return self._with_preamble(choice([self._text(), self._led_calls()]))
        with_calls = intersection(
            first_match(self._syntax.marker), self._allowed_beginnings(), *map(without, self._bare_marker())
        )
        return choice([self._text(), sequence(PatternNode(with_calls), self._calls(self._syntax, self._syntax.marker))])

    def _with_preamble(self, body: Node) -> Node:
        """The body, or a text to the user, in a message of its own, and then the body."""
        if not self._format.preamble:
            return body
        begin, end = self._format.preamble
        text = concat(without(*self._format.not_in_text), literal(end))
        return choice([body, sequence(TextNode(begin), PatternNode(text), body)])

    def _led_calls(self) -> Node:
        calls = choice(self._calls(syntax) for syntax in self._syntax.spellings)
        marks = self._format.reasoning if self._thinking != "none" else None
        has_gap = marks is not None and not marks.bridge and self._syntax.opening
        return sequence(PatternNode(_LINE_BREAKS) if has_gap else _optional(self._syntax.leading), calls)

    def _calls(self, syntax: CallSyntax, read: str = "") -> Node:
        """All calls of a reply, from after a part of the first marker that was read."""
        most = 1 if self._plan.single else syntax.most
        begin = (syntax.section_begin + syntax.begin).removeprefix(read)
        call, separator = self._call(syntax), sequence(*_with_places(syntax.separator + syntax.begin))
        more = [RepeatNode(sequence(separator, call), 0, most - 1)] if most > 1 else []
        # Line breaks may follow: where calls stand on lines of their own, one would ask for another call otherwise.
        has_lines = (most > 1 or syntax.trailing) and not self._format.in_channels
        blanks = [PatternNode(_LINE_BREAKS)] if has_lines else []
        return sequence(*_with_places(begin), call, *more, TextNode(syntax.section_end), *blanks)

    def _call(self, syntax: CallSyntax) -> RuleNode:
        """The rule of one call, from after its beginning on."""
        spelling = self._syntax.spellings.index(syntax)
        rule = f"call_{spelling}" if spelling else "call"
        if rule not in self._rules:
            calls = [self._call_of(syntax, tool, f"tool_{number}") for number, tool in enumerate(self._plan.callable)]
            self._rules[rule] = choice(calls)
        return RuleNode(rule)

    def _call_of(self, syntax: CallSyntax, tool: Tool, rule: str) -> Node:
        body, name = syntax.body, self._format.write_name(tool.name)
        if isinstance(body, JSONCall):
            return sequence(*_with_places(body.head), TextNode(name + body.between), self._arguments(tool, rule))
        return sequence(TextNode(name), *_with_places(body.between(name)), self._arguments(tool, rule))

    def _arguments(self, tool: Tool, rule: str) -> Node:
        """The rule of a tool's arguments, with what ends the call."""
        if rule not in self._rules:
            rules = self._syntax.body.rules(tool, f"{rule}_", self._syntax.end)
            self._rules.update(rules.rules)
            self._rules[rule] = rules.root
        return RuleNode(rule)

    def _json(self, response: JSONSchema) -> Node:
        rules = schema_rules(
            response.json_schema,
            "answer_",
            response.strict,
            notation=JSONNotation(response.separators),
            documents=response.documents,
        )
        self._rules.update(rules.rules)
        return rules.root

    def _text(self) -> Node:
        """Text without a call, with the marks around it."""
        syntax, end = self._syntax, self._format.text_end
        excluded = [
            marker for marker in (syntax.marker, end, *self._bare_marker(), *self._format.not_in_text) if marker
        ]
        texts = intersection(without(*excluded), complement(syntax.replies_with_calls) if syntax.opening else ANY_TEXT)
        if self._format.text_begin:
            return sequence(TextNode(self._format.text_begin), PatternNode(concat(texts, literal(end))))
        return PatternNode(concat(intersection(texts, self._allowed_beginnings()), literal(end)))

    def _bare_marker(self) -> list[str]:
        """What is read as a call, too, and is none that the grammar has checked."""
        return [] if self._syntax.bare is None else [self._syntax.bare.marker]

    def _allowed_beginnings(self) -> Language:
        """What is not read as the beginning of a block of reasoning."""
        marks = self._format.reasoning
        if marks is None or self._thinking != "auto":
            return ANY_TEXT
        marks_at_start = union(literal(marks.begin), literal(marks.end) if marks.has_bare_end else nothing())
        return complement(concat(_BLANKS, marks_at_start, ANY_TEXT))

    def _with_reasoning(self, body: Node) -> Node:
        marks = self._format.reasoning
        if marks is None or self._thinking == "none":
            return self._led(body)
        if self._thinking == "open":
            return sequence(PatternNode(concat(first_match(marks.end), self._gap(marks))), body)
        lead = literal(marks.lead) if marks.lead else repeat(literal("\n"), 0, min(1, marks.gap))
        block = concat(literal(marks.begin), first_match(marks.end))
        block = union(block, literal(marks.end)) if marks.has_bare_end else block
        return choice([sequence(PatternNode(concat(lead, block, self._gap(marks))), body), self._led(body)])

    def _led(self, body: Node) -> Node:
        """The body after the blanks that may stand before calls; after reasoning its block ends with them."""
        return sequence(_optional(self._syntax.leading), body) if self._plan.mode == "required" else body

    def _gap(self, marks: Reasoning) -> Language:
        """What stands between a block and the rest; free text after it begins with the line breaks itself."""
        is_free = self._plan.mode != "required" and self._response is None
        line_breaks = repeat(literal("\n"), 0, 0 if is_free else marks.gap)
        return concat(literal(marks.bridge), line_breaks)


def _with_places(text: str) -> list[Node]:
    """A text as nodes: {index} is a number and {id} and {server} are names, which the model chooses in its own way."""
    return [_PLACES.get(part) or TextNode(part) for part in re.split(r"(\{index\}|\{id\}|\{server\})", text)]


def _optional(text: str) -> Node:
    return choice([TextNode(text), TextNode("")])

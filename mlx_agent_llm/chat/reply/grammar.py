"""A reply as a grammar: reasoning, and then text, calls or a JSON answer, whatever was asked for."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import Reasoning
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
    repeat,
    without,
)
from mlx_agent_llm.request.constraints import JSONSchema

_NUMBER = PatternNode(parse_full_match("[0-9]{1,3}"))
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
            return self._calls()
        if self._response is not None:
            begin, end = TextNode(self._format.text_begin), TextNode(self._format.text_end)
            answer = sequence(begin, self._json(self._response), end)
            return answer if self._plan.mode == "none" else choice([self._calls(), answer])
        if self._plan.mode == "none":
            return self._text()
        if self._syntax.opening or self._format.text_begin:
            return choice([self._text(), self._calls()])
        with_calls = intersection(first_match(self._syntax.marker), self._allowed_beginnings())
        return choice([self._text(), sequence(PatternNode(with_calls), self._calls(self._syntax.marker))])

    def _calls(self, read: str = "") -> Node:
        """All calls of a reply, from after a part of the first marker that was read."""
        syntax = self._syntax
        most = 1 if self._plan.single else syntax.most
        begin = (syntax.section_begin + syntax.begin).removeprefix(read)
        call, separator = self._call(), TextNode(syntax.separator + syntax.begin)
        more = [RepeatNode(sequence(separator, call), 0, most - 1)] if most > 1 else []
        return sequence(TextNode(begin), call, *more, TextNode(syntax.section_end))

    def _call(self) -> RuleNode:
        """The rule of one call, from after its beginning on."""
        if "call" not in self._rules:
            calls = [self._call_of(tool, f"tool_{number}") for number, tool in enumerate(self._plan.callable)]
            self._rules["call"] = choice(calls)
        return RuleNode("call")

    def _call_of(self, tool: Tool, rule: str) -> Node:
        body, name = self._syntax.body, self._format.write_name(tool.name)
        if isinstance(body, JSONCall):
            return sequence(*_numbered(body.head), TextNode(name + body.between), self._arguments(tool, rule))
        return sequence(TextNode(name), *_numbered(body.arguments_begin), self._arguments(tool, rule))

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
        excluded = [marker for marker in (syntax.marker, end, *self._format.not_in_text) if marker]
        texts = intersection(without(*excluded), complement(syntax.replies_with_calls) if syntax.opening else ANY_TEXT)
        if self._format.text_begin:
            return sequence(TextNode(self._format.text_begin), PatternNode(concat(texts, literal(end))))
        return PatternNode(intersection(texts, self._allowed_beginnings()))

    def _allowed_beginnings(self) -> Language:
        """What is not read as the beginning of a block of reasoning."""
        marks = self._format.reasoning
        if marks is None or self._thinking != "auto":
            return ANY_TEXT
        return complement(concat(_BLANKS, literal(marks.begin), ANY_TEXT))

    def _with_reasoning(self, body: Node) -> Node:
        marks = self._format.reasoning
        if marks is None or self._thinking == "none":
            return body
        if self._thinking == "open":
            return sequence(PatternNode(self._block(marks)), body)
        block = concat(literal(marks.begin), self._block(marks))
        return choice([sequence(PatternNode(block), body), body])

    def _block(self, marks: Reasoning) -> Language:
        """A block up to its end; free text after it begins with the line breaks itself."""
        is_free = self._plan.mode != "required" and self._response is None
        line_breaks = repeat(literal("\n"), 0, 0 if is_free else marks.gap)
        return concat(first_match(marks.end), literal(marks.bridge), line_breaks)


def _numbered(text: str) -> list[Node]:
    """A text as nodes, with a number for {index}: the model counts in its own way."""
    before, index, after = text.partition("{index}")
    return [TextNode(before), _NUMBER, TextNode(after)] if index else [TextNode(before)]

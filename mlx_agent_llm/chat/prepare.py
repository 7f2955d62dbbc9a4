"""From messages and tools to what the engine runs: the prompt's tokens, the constraint and the reply's parser."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.chat.found_format import found_format
from mlx_agent_llm.chat.message_ends import message_ends
from mlx_agent_llm.chat.messages import Message, read_messages
from mlx_agent_llm.chat.output import ChatDelta, ToolCall
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.reply.reader import ReplyReader
from mlx_agent_llm.chat.response_format import Parsed, ResponseFormat, read_response_format
from mlx_agent_llm.chat.template import render_prompt
from mlx_agent_llm.chat.tools import as_tools, check_parameters, plan_tools
from mlx_agent_llm.config import check_range
from mlx_agent_llm.constrain.grammars import constraint_grammar
from mlx_agent_llm.constrain.reasoning import ReasoningLimit, ThinkingTracker
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import Delta, FreeText, Usage
from mlx_agent_llm.request.constraints import Constraint, JSONSchema

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer


class ChatParser:
    """Turns the Deltas of one request into ChatDeltas."""

    def __init__(
        self, reader: ReplyReader, response: ResponseFormat | None, tracker: ThinkingTracker | None = None
    ) -> None:
        self._reader = reader
        self._response = response
        self._tracker = tracker
        self._thinking = None if tracker is None else tracker.start
        self._text: list[str] = []
        self._has_calls = False

    def feed(self, delta: Delta) -> list[ChatDelta]:
        """What one Delta adds; the last one, with a finish_reason, also gives what was held back and the end."""
        deltas = self._noted(self._reader.feed(delta.text))
        if self._tracker is not None and self._thinking is not None:
            self._thinking = self._tracker.advance(self._thinking, delta.token_ids)
        if delta.finish_reason is not None:
            is_cut_off = delta.finish_reason == "length" and not delta.forced_close
            deltas += self._noted(self._reader.finish(cut_off=is_cut_off))
            deltas.append(self._end(delta))
        elif delta.logprobs:
            deltas.append(ChatDelta(logprobs=delta.logprobs))
        return deltas

    def _end(self, delta: Delta) -> ChatDelta:
        ended = delta.finish_reason == "stop"
        is_whole = delta.finish_reason in ("stop", "length")  # within the budget the text is always completed
        parsed = self._parse() if is_whole and not self._has_calls else Parsed()
        return ChatDelta(
            finish_reason="tool_calls" if ended and self._has_calls else delta.finish_reason,
            usage=self._with_reasoning(delta.usage),
            timings=delta.timings,
            parsed=parsed.value,
            parse_error=parsed.error,
            logprobs=delta.logprobs,
            forced_close=delta.forced_close,
            checked=delta.checked,
            stop_text=delta.stop_text,
        )

    def _with_reasoning(self, usage: Usage | None) -> Usage | None:
        if usage is None or self._thinking is None or self._thinking.stage == "before":
            return usage
        return replace(usage, reasoning_tokens=self._thinking.num_tokens)

    def _noted(self, deltas: list[ChatDelta]) -> list[ChatDelta]:
        self._text += [delta.text for delta in deltas]
        self._has_calls = self._has_calls or any(isinstance(delta.finished_call, ToolCall) for delta in deltas)
        return deltas

    def _parse(self) -> Parsed:
        return Parsed() if self._response is None else self._response.parse("".join(self._text))


@dataclass(frozen=True)
class PreparedChat:
    """A chat request, ready to be submitted; the parser belongs to one reply.

    shown_tokens: the control tokens that the parser reads in the reply, with their texts, which the reply has to show.
    free_text: makes what finds the text of one reply that stop texts may end; None where the reply has none.
    tracker, reasoning_end: what follows the reply's reasoning, and the tokens that end it; None where there is none.
    """

    prompt_token_ids: list[int]
    constraint: Constraint | None
    parser: ChatParser
    shown_tokens: Mapping[int, bytes] = field(default_factory=dict)
    tracker: ThinkingTracker | None = None
    reasoning_end: tuple[int, ...] = ()
    free_text: Callable[[], FreeText] | None = None
    find_message_ends: Callable[[], Sequence[int]] = tuple

    @property
    def message_ends(self) -> Sequence[int]:
        """After how many tokens of the prompt the texts of messages end, as far as they are found in it.

        They are looked for when they are asked for, since most models have no use for them.
        """
        return self.find_message_ends()

    def limit_reasoning(self, max_tokens: int | None) -> ReasoningLimit | None:
        """The limit of the reasoning; RequestError for a bad one, and where the model does not reason."""
        if max_tokens is None:
            return None
        try:
            check_range("max_reasoning_tokens", max_tokens, 0)
        except ValueError as error:
            raise RequestError(str(error)) from None
        if self.tracker is None:
            raise RequestError(f"max_reasoning_tokens={max_tokens} needs a model whose chat template has reasoning")
        return ReasoningLimit(self.tracker, self.reasoning_end, max_tokens)


def count_tokens(tokenizer: Tokenizer, messages: Any, *, tools: Any = None, tool_format: str = "auto") -> int:
    """How many tokens a prompt of these messages and tools has.

    Any part of a conversation can be counted, also a tool's answer without its call, and in any order. Where the
    template refuses that, each message counts as a user's turn of its own.
    """
    found = found_format(tokenizer, tool_format)
    turns = read_messages(messages, in_order=False) if messages else [Message("user", "")]
    shown = as_tools(tools)
    try:
        return len(render_prompt(tokenizer, turns, shown, None, found).token_ids)
    except RequestError:
        return sum(
            len(render_prompt(tokenizer, [_as_users_turn(turn)], () if index else shown, None, found).token_ids)
            for index, turn in enumerate(turns)
        )


def prepare_chat(
    tokenizer: Tokenizer,
    messages: Any,
    *,
    tools: Any = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool = True,
    response_format: Any = None,
    enable_thinking: bool | str | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    tool_format: str = "auto",
    check: Callable[[JSONSchema], object] = constraint_grammar,
) -> PreparedChat:
    """Check a chat request and turn it into tokens, a constraint and a parser.

    With tools and response_format the reply is calls, or else the JSON; with a tool_choice that requires a call it is
    calls alone. documents: for templates that show them. check: raises what is wrong with a schema; an engine's
    remembers those that it has read.
    Raises RequestError, ToolChoiceError, UnsupportedSchemaError or ConstraintError.
    """
    if tokenizer.chat_template is None:
        raise RequestError("the model has no chat template: give a prompt to generate instead of messages to chat")
    template = found_format(tokenizer, tool_format)
    found = template.tool_format
    turns = read_messages(messages)
    plan = plan_tools(as_tools(tools), tool_choice, parallel_tool_calls)
    found.check_names(plan.shown)
    check_parameters(plan.shown, check)
    response = read_response_format(response_format)
    schema = None if response is None else response.constraint
    if schema is not None:
        check(schema)
    prompt = render_prompt(
        tokenizer, turns, plan.shown, schema, template, enable_thinking=enable_thinking, documents=documents
    )
    num_earlier_calls = sum(len(turn.tool_calls) for turn in turns)
    reply = ExpectedReply(found, plan, schema, prompt.thinking, num_earlier_calls)
    tracker = reply.thinking_tracker(partial(_text_of, tokenizer))
    end = tokenizer.encode(found.reasoning.end, add_special_tokens=False) if found.reasoning else []
    return PreparedChat(
        prompt.token_ids,
        reply.constraint(),
        ChatParser(reply.reader(), response, tracker),
        _shown_tokens(tokenizer, found.markers),
        tracker,
        tuple(end),
        reply.free_text if reply.has_free_text else None,
        partial(message_ends, tokenizer, prompt.text, prompt.token_ids, turns),
    )


def _shown_tokens(tokenizer: Tokenizer, markers: Collection[str]) -> dict[int, bytes]:
    texts = tokenizer.special_token_texts.items()
    return {token: text.encode() for token, text in texts if text in markers and token not in tokenizer.eos_token_ids}


def _text_of(tokenizer: Tokenizer, token_id: int) -> bytes:
    if token_id in tokenizer.special_token_texts:
        return tokenizer.special_token_texts[token_id].encode()
    return tokenizer.token_bytes[token_id] if token_id < len(tokenizer.token_bytes) else b""


def _as_users_turn(turn: Message) -> Message:
    calls = [f"{call.name}{call.arguments_json}" for call in turn.tool_calls]
    return Message("user", "\n".join([turn.content, *calls]))

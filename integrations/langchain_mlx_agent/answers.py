"""What the engine answers as LangChain's messages: whole, or in chunks that merge into the whole message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel, ValidationError

from mlx_agent_llm import ChatDelta, InvalidToolCall, Timings, TokenLogprob, Usage
from mlx_agent_llm.chat import ToolCallDelta, fold_chat

PROVIDER = "mlx_agent"

_BREAKS = ("]", "}", '"]', '"}', '""]', '""}')


@dataclass
class _BegunCall:
    """A call as far as its pieces were streamed."""

    id: str
    name: str | None
    arguments: str = ""


class AnswerReader:
    """Turns the deltas of one answer into a message, or one by one into chunks.

    A call's first chunk has its name and id, the others have pieces of its arguments and the same index. The last
    chunk has usage and metadata. A call that was cut off gets an end that keeps LangChain from repairing it in silence
    into a valid one when the chunks are merged.

    token_bytes: token id -> the bytes that it adds to the text. load_seconds: how long the call waited for its engine.
    parsed_class: what the value of a response format is read as.
    """

    def __init__(
        self,
        model_name: str,
        token_bytes: Sequence[bytes],
        load_seconds: float = 0.0,
        parsed_class: type[BaseModel] | None = None,
    ) -> None:
        self._model_name = model_name
        self._load_seconds = load_seconds
        self._parsed_class = parsed_class
        self._created_at = datetime.now(UTC).isoformat()
        self._token_bytes = token_bytes
        self._calls: list[_BegunCall] = []  # one after the other: pieces belong to the last one
        self._blocks_before: set[str] = set()  # kinds of content before the first call: they take the first indices

    def message(self, deltas: Sequence[ChatDelta]) -> AIMessage:
        """All deltas of an answer as one message."""
        output = fold_chat(deltas)
        for delta in deltas:
            if delta.tool_call is not None:
                self._note(delta.tool_call)
        return AIMessage(
            content=output.text,
            additional_kwargs={**_thought(output.reasoning), **self._parsed(deltas[-1])},
            tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in output.tool_calls],
            invalid_tool_calls=[self._invalid_call(call) for call in output.invalid_tool_calls],
            usage_metadata=usage_metadata(output.usage),
            response_metadata={**self._logprobs(output.logprobs), **self._metadata(deltas[-1])},
        )

    def chunk(self, delta: ChatDelta, with_usage: bool = True) -> ChatGenerationChunk | None:
        """The chunk that a delta becomes; None for a valid call, whose pieces came before it."""
        if delta.finish_reason is not None:
            return self._end(delta, with_usage)
        if delta.tool_call is not None:
            self._note(delta.tool_call)
            return self._call_chunk(delta.tool_call.arguments, delta.tool_call.id, delta.tool_call.name)
        if isinstance(delta.finished_call, InvalidToolCall):
            return self._break(delta.finished_call)
        if delta.finished_call is not None:
            return None
        if delta.logprobs is not None:
            return _chunk(response_metadata=self._logprobs(delta.logprobs))
        return self._content(delta.text, delta.reasoning)

    def _note(self, fragment: ToolCallDelta) -> None:
        if fragment.id is not None:
            self._calls.append(_BegunCall(fragment.id, fragment.name))
        self._calls[-1].arguments += fragment.arguments

    def _invalid_call(self, broken: InvalidToolCall) -> Any:
        """A call that was begun has the arguments as far as they came, another one all of its text."""
        begun = next((call for call in self._calls if call.id == broken.id), None)
        name, arguments = (None, broken.text) if begun is None else (begun.name, begun.arguments)
        return invalid_tool_call(name=name, args=arguments, id=broken.id, error=broken.error)

    def _content(self, text: str, reasoning: str) -> ChatGenerationChunk:
        if not self._calls:
            self._blocks_before |= {kind for kind, written in (("text", text), ("reasoning", reasoning)) if written}
        return _chunk(text, additional_kwargs=_thought(reasoning))

    def _break(self, broken: InvalidToolCall) -> ChatGenerationChunk:
        if self._calls and self._calls[-1].id == broken.id:
            return self._call_chunk(breaking(self._calls[-1].arguments))
        self._calls.append(_BegunCall(broken.id, None, broken.text))
        return self._call_chunk(broken.text + breaking(broken.text), broken.id)

    def _call_chunk(self, arguments: str, call_id: str | None = None, name: str | None = None) -> ChatGenerationChunk:
        index = len(self._blocks_before) + len(self._calls) - 1
        return _chunk(tool_call_chunks=[tool_call_chunk(name=name, args=arguments, id=call_id, index=index)])

    def _end(self, delta: ChatDelta, with_usage: bool) -> ChatGenerationChunk:
        assert delta.usage is not None
        return _chunk(
            chunk_position="last",
            additional_kwargs=self._parsed(delta),
            usage_metadata=usage_metadata(delta.usage) if with_usage else None,
            response_metadata={**self._logprobs(delta.logprobs), **self._metadata(delta)},
        )

    def _parsed(self, last: ChatDelta) -> dict[str, Any]:
        """The value of a response format, as OpenAI's messages carry it."""
        if last.parsed is None or self._parsed_class is None:
            return {} if last.parsed is None else {"parsed": last.parsed}
        text = json.dumps(last.parsed)
        try:
            return {"parsed": self._parsed_class.model_validate_json(text)}
        except ValidationError as error:
            raise OutputParserException(
                f"the answer is no {self._parsed_class.__name__}: {error}", llm_output=text
            ) from error

    def _metadata(self, last: ChatDelta) -> dict[str, Any]:
        assert last.timings is not None and last.usage is not None
        return {
            "model_name": self._model_name,
            "model_provider": PROVIDER,
            "finish_reason": last.finish_reason,
            "forced_close": last.forced_close,
            "timings": asdict(last.timings),
            "model": self._model_name,
            "created_at": self._created_at,
            "done": True,
            "done_reason": last.finish_reason,
            "token_usage": {
                "prompt_tokens": last.usage.prompt_tokens,
                "completion_tokens": last.usage.completion_tokens,
                "total_tokens": last.usage.total_tokens,
            },
            **_durations(last.timings, last.usage, self._load_seconds),
        }

    def _logprobs(self, logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any]:
        """OpenAI's form, whose lists grow when chunks are merged; nothing where nobody asked."""
        if logprobs is None:
            return {}
        content = [
            {
                **self._ranked(one.token_id, one.logprob),
                "top_logprobs": [self._ranked(token_id, logprob) for token_id, logprob in one.top],
            }
            for one in logprobs
        ]
        return {"logprobs": {"content": content}}

    def _ranked(self, token_id: int, logprob: float) -> dict[str, Any]:
        written = self._token_bytes[token_id]
        return {"token": written.decode(errors="replace"), "bytes": list(written), "logprob": logprob}


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Token counts as LangChain has them; cache_read are prompt tokens whose KV was found, not computed."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
        output_token_details={"reasoning": usage.reasoning_tokens},
    )


def _durations(timings: Timings, usage: Usage, load_seconds: float) -> dict[str, int]:
    """Ollama's names: nanoseconds, and the tokens that each part of the time went to."""
    seconds = {
        "total_duration": load_seconds + timings.total,
        "load_duration": load_seconds,
        "queue_duration": timings.queue,
        "prompt_eval_duration": (timings.total if timings.ttft is None else timings.ttft) - timings.queue,
        "eval_duration": 0.0 if timings.ttft is None else timings.total - timings.ttft,
    }
    counts = {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}
    return {name: round(value * 1e9) for name, value in seconds.items()} | counts


def _thought(reasoning: str) -> dict[str, str]:
    return {"reasoning_content": reasoning} if reasoning else {}


def breaking(arguments: str) -> str:
    """What to append to a beginning of JSON so that LangChain does not repair it into an object."""
    return next(end for end in _BREAKS if not isinstance(_repaired(arguments + end), dict))


def _repaired(text: str) -> Any:
    try:
        return parse_partial_json(text)
    except JSONDecodeError:
        return None


def _chunk(content: str = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))

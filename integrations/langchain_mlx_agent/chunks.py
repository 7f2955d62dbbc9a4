"""What the engine answers as LangChain's chunks; merged, the chunks of an answer are its whole message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import JSONDecodeError
from typing import Any

from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.json import parse_partial_json

from mlx_agent_llm import ChatDelta, InvalidToolCall, Usage
from mlx_agent_llm.chat import ToolCallDelta

PROVIDER = "mlx_agent"

_BREAKS = ("]", "}", '"]', '"}', '""]', '""}')


@dataclass
class _WrittenCall:
    """A call of which pieces were written; its place in the list gives its index."""

    id: str
    arguments: str = ""
    error: str | None = None


class ChunkWriter:
    """Turns the deltas of one answer into chunks.

    A call's first chunk has its name and id, the others have pieces of its arguments and the same index. The last
    chunk has usage and metadata. A call that was cut off gets an end that keeps LangChain from repairing it in silence
    into a valid one when the chunks are merged.
    """

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._calls: list[_WrittenCall] = []  # one after the other: pieces belong to the last one
        self._blocks_before: set[str] = set()  # kinds of content before the first call: they take the first indices

    def write(self, delta: ChatDelta) -> list[ChatGenerationChunk]:
        """Return the chunk that a delta becomes, or none: a valid call was written in pieces before it is finished."""
        if delta.finish_reason is not None:
            return [self._end(delta)]
        if delta.tool_call is not None:
            return [self._fragment(delta.tool_call)]
        if isinstance(delta.finished_call, InvalidToolCall):
            return [self._break(delta.finished_call)]
        if delta.finished_call is not None:
            return []
        return [self._content(delta.text, delta.reasoning)]

    def result(self, chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
        """Return the chunks as one message, in which invalid calls have their own arguments and say what is wrong."""
        result = generate_from_stream(iter(chunks))
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        names = {call["id"]: call["name"] for call in message.invalid_tool_calls}
        message.invalid_tool_calls = [
            invalid_tool_call(name=names[call.id], args=call.arguments, id=call.id, error=call.error)
            for call in self._calls
            if call.error is not None
        ]
        return result

    def _content(self, text: str, reasoning: str) -> ChatGenerationChunk:
        if not self._calls:
            self._blocks_before |= {kind for kind, written in (("text", text), ("reasoning", reasoning)) if written}
        return _chunk(content=text, additional_kwargs={"reasoning_content": reasoning} if reasoning else {})

    def _fragment(self, fragment: ToolCallDelta) -> ChatGenerationChunk:
        if fragment.id is not None:
            self._calls.append(_WrittenCall(fragment.id))
        self._calls[-1].arguments += fragment.arguments
        return self._call_chunk(fragment.arguments, fragment.id, fragment.name)

    def _break(self, broken: InvalidToolCall) -> ChatGenerationChunk:
        if self._calls and self._calls[-1].id == broken.id:
            self._calls[-1].error = broken.error
            return self._call_chunk(breaking(self._calls[-1].arguments))
        self._calls.append(_WrittenCall(broken.id, broken.text, broken.error))
        return self._call_chunk(broken.text + breaking(broken.text), broken.id)

    def _call_chunk(self, arguments: str, call_id: str | None = None, name: str | None = None) -> ChatGenerationChunk:
        index = len(self._blocks_before) + len(self._calls) - 1
        return _chunk(tool_call_chunks=[tool_call_chunk(name=name, args=arguments, id=call_id, index=index)])

    def _end(self, delta: ChatDelta) -> ChatGenerationChunk:
        assert delta.usage is not None and delta.timings is not None
        return _chunk(
            chunk_position="last",
            usage_metadata=usage_metadata(delta.usage),
            response_metadata={
                "model_name": self._model_name,
                "model_provider": PROVIDER,
                "finish_reason": delta.finish_reason,
                "timings": asdict(delta.timings),
            },
        )


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Return token counts as LangChain has them; cache_read are prompt tokens whose KV was found, not computed."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
        output_token_details={"reasoning": usage.reasoning_tokens},
    )


def breaking(arguments: str) -> str:
    """Return what to append to a beginning of JSON so that LangChain does not repair it into an object."""
    return next(end for end in _BREAKS if not isinstance(_repaired(arguments + end), dict))


def _repaired(text: str) -> Any:
    try:
        return parse_partial_json(text)
    except JSONDecodeError:
        return None


def _chunk(*, content: str = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))

"""The route of chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.body import read_fields
from mlx_agent_llm.server.chat_completions.encoder import ChatEncoder
from mlx_agent_llm.server.chat_completions.request import ChatCompletionRequest
from mlx_agent_llm.server.event_stream import DONE, EventStream, failed_openai, frame, while_connected
from mlx_agent_llm.server.logprob_content import LogprobWriter
from mlx_agent_llm.server.replies import Replies, whole_replies
from mlx_agent_llm.server.service import service_of, start_chat


async def chat_completions(request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    settings = service_of(request).settings
    fields = await read_fields(request, ChatCompletionRequest, settings)
    started = await start_chat(request, fields.model, fields.call(), "chatcmpl-")
    logprobs = LogprobWriter(started.engine.tokenizer.token_bytes)
    encoder = ChatEncoder(started.id, started.created, started.model, logprobs, fields.is_legacy)
    if fields.stream:
        return EventStream(_frames(started.replies, encoder, fields.includes_usage), failed_openai, settings)
    replies = await while_connected(request.receive, whole_replies(started.replies))
    return JSONResponse(encoder.whole(replies))


async def _frames(replies: Replies, encoder: ChatEncoder, includes_usage: bool) -> AsyncIterator[bytes]:
    async for index, event in replies:
        if data := b"".join(map(frame, encoder.chunks(index, event))):
            yield data
    if includes_usage:
        yield frame(encoder.usage_chunk())
    yield DONE

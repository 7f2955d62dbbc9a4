"""The routes of messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.body import read_fields
from mlx_agent_llm.server.event_stream import EventStream, frame, named_frames, while_connected
from mlx_agent_llm.server.messages.blocks import has_billing_block
from mlx_agent_llm.server.messages.encoder import MessagesEncoder
from mlx_agent_llm.server.messages.request import CountTokensRequest, MessagesRequest
from mlx_agent_llm.server.replies import Replies, prompt_token_ids, whole_replies
from mlx_agent_llm.server.service import borrow_engine, service_of, start_chat

_PING = frame({"type": "ping"}, "ping")
LEFT_OUT = "x-mlx-agent-left-out"
"""The header that says what of a request's prompt the model was not shown."""


async def messages(request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    settings = service_of(request).settings
    fields = await read_fields(request, MessagesRequest, settings)
    started = await start_chat(request, fields.model, fields.call(), "msg_")
    encoder = MessagesEncoder(started.id, started.model, started.replies.num_prompt_tokens, fields.shows_thinking)
    headers = {LEFT_OUT: "billing header"} if has_billing_block(fields.system) else {}
    if fields.stream:
        return EventStream(_frames(started.replies, encoder), _failed, settings, quiet=_PING, headers=headers)
    [reply] = await while_connected(request.receive, whole_replies(started.replies))
    return JSONResponse(encoder.whole(reply), headers=headers)


async def count_tokens(request: Request) -> Response:
    """How many tokens the prompt of a request has."""
    settings = service_of(request).settings
    fields = await read_fields(request, CountTokensRequest, settings)
    _, engine = await borrow_engine(request, fields.model)
    call = fields.call()
    call.check(settings)
    token_ids = await asyncio.to_thread(prompt_token_ids, engine, call)
    return JSONResponse({"input_tokens": len(token_ids)})


async def _frames(replies: Replies, encoder: MessagesEncoder) -> AsyncIterator[bytes]:
    yield named_frames(encoder.begin())
    async for _, event in replies:
        if data := named_frames(encoder.events(event)):
            yield data


def _failed(error: APIError) -> bytes:
    """An error event is the end of a stream."""
    return frame(error.anthropic_envelope, "error")

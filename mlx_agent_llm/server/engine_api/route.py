"""The routes of the engine's own API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.handle import Handle
from mlx_agent_llm.engine.in_thread import in_thread
from mlx_agent_llm.engine.prompt import Prompt
from mlx_agent_llm.request import SamplingParams
from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.body import read_fields
from mlx_agent_llm.server.engine_api.request import (
    CountRequest,
    DescribeRequest,
    EngineChatRequest,
    EngineGenerateRequest,
    EngineStreamRequest,
)
from mlx_agent_llm.server.event_stream import DONE, EventStream, frame
from mlx_agent_llm.server.gate import visit_of
from mlx_agent_llm.server.replies import Replies
from mlx_agent_llm.server.service import borrow_engine, service_of, start_chat
from mlx_agent_llm.wire import ChatFrame, Frame, OutputsFrame, TextFrame, bytes_of_tokens, params_of_json, write_frame


async def describe(request: Request) -> Response:
    """What a client has to know of a model before it asks it for anything."""
    fields = await read_fields(request, DescribeRequest, service_of(request).settings)
    name, engine = await borrow_engine(request, fields.model)
    return JSONResponse(
        {
            "model": name,
            "max_model_len": engine.max_model_len,
            "chat_template": engine.tokenizer.chat_template,
            "can_reason": engine.can_reason,
        }
    )


async def count(request: Request) -> Response:
    """How many tokens a prompt of messages has."""
    fields = await read_fields(request, CountRequest, service_of(request).settings)
    _, engine = await borrow_engine(request, fields.model)
    num_tokens = await asyncio.to_thread(engine.count_tokens, fields.messages, tools=fields.tools)
    return JSONResponse({"count": num_tokens})


async def engine_chat(request: Request) -> Response:
    """The deltas of a chat."""
    fields = await read_fields(request, EngineChatRequest, service_of(request).settings)
    started = await start_chat(request, fields.model, fields.call(), "engine-")
    return _stream(request, _chat_frames(started.replies, started.engine.tokenizer.token_bytes))


async def engine_stream(request: Request) -> Response:
    """The deltas of a prompt's completion."""
    fields = await read_fields(request, EngineStreamRequest, service_of(request).settings)
    _, engine = await borrow_engine(request, fields.model)
    params = params_of_json(fields.params)
    handle = await in_thread(partial(engine.submit, fields.prompt, params), Handle.cancel)
    visit_of(request).held.callback(handle.cancel)
    return _stream(request, _text_frames(handle, engine.tokenizer.token_bytes))


async def engine_generate(request: Request) -> Response:
    """All outputs of prompts, which run as one batch."""
    settings = service_of(request).settings
    fields = await read_fields(request, EngineGenerateRequest, settings)
    _, engine = await borrow_engine(request, fields.model)
    params = fields.sampling(settings)
    return _stream(request, _outputs_frame(engine, fields.prompts, params))


async def _chat_frames(replies: Replies, token_bytes: Sequence[bytes]) -> AsyncIterator[Frame]:
    async for _, delta in replies.deltas():
        yield ChatFrame(delta, bytes_of_tokens(delta.logprobs, token_bytes))


async def _text_frames(handle: Handle, token_bytes: Sequence[bytes]) -> AsyncIterator[Frame]:
    async for delta in handle:
        yield TextFrame(delta, bytes_of_tokens(delta.logprobs, token_bytes))


async def _outputs_frame(engine: Engine, prompts: Sequence[Prompt], params: SamplingParams) -> AsyncIterator[Frame]:
    outputs = await engine.agenerate(prompts, params)
    logprobs = [one for output in outputs for one in output.logprobs or ()]
    yield OutputsFrame(tuple(outputs), bytes_of_tokens(logprobs, engine.tokenizer.token_bytes))


def _stream(request: Request, frames: AsyncIterator[Frame]) -> EventStream:
    return EventStream(_written(frames), _failed, service_of(request).settings)


async def _written(frames: AsyncIterator[Frame]) -> AsyncIterator[bytes]:
    async for one in frames:
        yield b"data: " + write_frame(one) + b"\n\n"
    yield DONE


def _failed(error: APIError) -> bytes:
    return frame(error.engine_envelope | {"status": error.status}) + DONE

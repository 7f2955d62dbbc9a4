"""The route of completions: prompts are run as they stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from functools import partial
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.handle import Handle
from mlx_agent_llm.engine.in_thread import in_thread
from mlx_agent_llm.engine.prompt import Prompt
from mlx_agent_llm.request import RequestOutput, SamplingParams
from mlx_agent_llm.server.body import read_fields
from mlx_agent_llm.server.completions.encoder import CompletionEncoder
from mlx_agent_llm.server.completions.request import CompletionRequest
from mlx_agent_llm.server.event_stream import DONE, EventStream, failed_openai, frame, while_connected
from mlx_agent_llm.server.gate import visit_of
from mlx_agent_llm.server.logprob_content import LogprobWriter
from mlx_agent_llm.server.merged import merged
from mlx_agent_llm.server.replies import default_max_tokens
from mlx_agent_llm.server.service import borrow_engine, service_of


async def completions(request: Request) -> Response:
    """Continue prompts, whole or as a stream."""
    settings, held = service_of(request).settings, visit_of(request).held
    fields = await read_fields(request, CompletionRequest, settings)
    model, engine = await borrow_engine(request, fields.model)
    samples = fields.samples(default_max_tokens(engine, settings), settings)
    handles = await _start(engine, fields.prompts(), samples, held)
    logprobs = LogprobWriter(engine.tokenizer.token_bytes)
    encoder = CompletionEncoder(f"cmpl-{uuid4().hex}", int(time.time()), model, logprobs, len(samples))
    if fields.stream:
        return EventStream(_frames(handles, encoder, fields.includes_usage, held), failed_openai, settings)
    return JSONResponse(encoder.whole(await while_connected(request.receive, _whole(handles))))


async def _start(
    engine: Engine, prompts: Sequence[Prompt], samples: Sequence[SamplingParams], held: ExitStack
) -> list[Handle]:
    """Start each sample of each prompt; they are cancelled when `held` is closed."""
    handles = []
    for prompt in prompts:
        for params in samples:
            handles.append(await in_thread(partial(engine.submit, prompt, params), Handle.cancel))
            held.callback(handles[-1].cancel)
    return handles


async def _whole(handles: Sequence[Handle]) -> list[RequestOutput]:
    return await asyncio.gather(*(handle.aresult() for handle in handles))


async def _frames(
    handles: Sequence[Handle], encoder: CompletionEncoder, includes_usage: bool, held: ExitStack
) -> AsyncIterator[bytes]:
    async for index, delta in merged(handles, held):
        yield frame(encoder.chunk(index, delta))
    if includes_usage:
        yield frame(encoder.usage_chunk())
    yield DONE

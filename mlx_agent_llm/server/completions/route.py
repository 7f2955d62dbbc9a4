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
from mlx_agent_llm.server.api_error import check_not_cancelled
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
    service, visit = service_of(request), visit_of(request)
    settings, held = service.settings, visit.held
    fields = await read_fields(request, CompletionRequest, settings)
    model, engine = await borrow_engine(request, fields.model)
    samples = fields.samples(default_max_tokens(engine, settings), settings)
    handles = await _start(engine, fields.prompts(), samples, held)
    logprobs = LogprobWriter(engine.tokenizer.token_bytes)
    reply_id = f"cmpl-{uuid4().hex}"
    service.open_replies.add(visit.owner, reply_id, partial(_cancel, handles), held)
    encoder = CompletionEncoder(reply_id, int(time.time()), model, logprobs, len(samples))
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


def _cancel(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.cancel()


async def _whole(handles: Sequence[Handle]) -> list[RequestOutput]:
    outputs = await asyncio.gather(*(handle.aresult() for handle in handles))
    for output in outputs:
        check_not_cancelled(output.finish_reason)
    return outputs


async def _frames(
    handles: Sequence[Handle], encoder: CompletionEncoder, includes_usage: bool, held: ExitStack
) -> AsyncIterator[bytes]:
    async for index, delta in merged(handles, held):
        check_not_cancelled(delta.finish_reason)
        yield frame(encoder.chunk(index, delta))
    if includes_usage:
        yield frame(encoder.usage_chunk())
    yield DONE

"""The routes of responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.body import read_fields
from mlx_agent_llm.server.event_stream import EventStream, named_frames, while_connected
from mlx_agent_llm.server.gate import visit_of
from mlx_agent_llm.server.logprob_content import LogprobWriter
from mlx_agent_llm.server.replies import Replies
from mlx_agent_llm.server.responses.encoder import ResponseEncoder
from mlx_agent_llm.server.responses.items import read_items
from mlx_agent_llm.server.responses.request import ResponseRequest
from mlx_agent_llm.server.service import Started, service_of, start_chat


async def responses(request: Request) -> Response:
    """Answer a conversation, whole or as a stream, and remember it."""
    service, owner = service_of(request), visit_of(request).owner
    fields = await read_fields(request, ResponseRequest, service.settings)
    turns = fields.turns(_earlier_turns(request, fields.previous_response_id))
    started = await start_chat(request, fields.model, fields.call(turns), "resp_")
    logprobs = LogprobWriter(started.engine.tokenizer.token_bytes)
    encoder = ResponseEncoder(_begun(started, fields), logprobs)

    def remember() -> None:
        if fields.store is not False:
            said = [one.turn for one in (*turns, *read_items(encoder.response["output"]))]
            service.stored.put(owner, said, encoder.response)

    frames = _frames(started.replies, encoder, remember)
    if fields.stream:
        return EventStream(frames, lambda error: named_frames(encoder.failed(error)), service.settings)
    await while_connected(request.receive, _exhaust(frames))
    return JSONResponse(encoder.response)


async def show_response(request: Request) -> Response:
    """A response that is remembered."""
    response_id = request.path_params["id"]
    stored = service_of(request).stored.get(visit_of(request).owner, response_id)
    if stored is None:
        raise _unknown(response_id)
    return JSONResponse(stored.response)


async def delete_response(request: Request) -> Response:
    """Forget a response, and end it where it is being written."""
    service, owner, response_id = service_of(request), visit_of(request).owner, request.path_params["id"]
    is_cancelled = service.open_replies.cancel(owner, response_id)
    if not service.stored.remove(owner, response_id) and not is_cancelled:
        raise _unknown(response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


def _earlier_turns(request: Request, response_id: str | None) -> list[dict[str, Any]]:
    if response_id is None:
        return []
    stored = service_of(request).stored.get(visit_of(request).owner, response_id)
    if stored is None:
        raise _unknown(response_id, "previous_response_id")
    return stored.messages


def _unknown(response_id: str, param: str = "id") -> APIError:
    message = f"{param}={response_id!r} is no response that is remembered: the oldest are forgotten, and all with them"
    return APIError(404, f"{message} when the server ends", param, "response_not_found")


def _begun(started: Started, fields: ResponseRequest) -> dict[str, Any]:
    """The response before anything of it is written: what was asked for, with the values that hold."""
    given = fields.model_dump(exclude_none=True, by_alias=True)
    return {
        "id": started.id,
        "object": "response",
        "created_at": started.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": fields.metadata or {},
        "model": started.model,
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "reasoning": given.get("reasoning"),
        "store": fields.store is not False,
        "temperature": fields.temperature,
        "text": given.get("text", {"format": {"type": "text"}}),
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": given.get("tools", []),
        "top_p": fields.top_p,
        "truncation": "disabled",
        "usage": None,
    }


async def _frames(replies: Replies, encoder: ResponseEncoder, remember: Callable[[], None]) -> AsyncIterator[bytes]:
    yield named_frames(encoder.begin())
    async for _, event in replies:
        data = named_frames(encoder.events(event))
        if encoder.response["status"] != "in_progress":
            remember()  # before its client can ask for it
        if data:
            yield data


async def _exhaust(frames: AsyncIterator[bytes]) -> None:
    async for _ in frames:
        pass

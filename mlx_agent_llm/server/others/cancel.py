"""The route that ends what another request is waiting for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.gate import visit_of
from mlx_agent_llm.server.service import service_of


async def cancel_reply(request: Request) -> Response:
    """End the replies of an id that is being written, for the key that asked for them."""
    reply_id = request.path_params["id"]
    if not service_of(request).open_replies.cancel(visit_of(request).owner, reply_id):
        raise APIError(404, f"id={reply_id!r} is nothing that is being written", "id", "not_found")
    return JSONResponse({"id": reply_id, "cancelled": True})

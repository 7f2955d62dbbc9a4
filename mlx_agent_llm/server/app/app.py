"""The application: routes behind the gate, and how what goes wrong in them is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.server.api_error import APIError, api_error_of
from mlx_agent_llm.server.chat_completions.route import chat_completions
from mlx_agent_llm.server.completions.route import completions
from mlx_agent_llm.server.engine_api.route import count, describe, engine_chat, engine_generate, engine_stream
from mlx_agent_llm.server.event_stream import ClientGoneError
from mlx_agent_llm.server.gate import Gate
from mlx_agent_llm.server.keys import Keys
from mlx_agent_llm.server.messages.route import count_tokens, messages
from mlx_agent_llm.server.others.cancel import cancel_reply
from mlx_agent_llm.server.others.embeddings import embeddings
from mlx_agent_llm.server.others.metrics import metrics
from mlx_agent_llm.server.others.models import health, list_models, show_model
from mlx_agent_llm.server.others.rerank import rerank
from mlx_agent_llm.server.others.tokens import detokenize, tokenize
from mlx_agent_llm.server.page.route import PATHS, show_page
from mlx_agent_llm.server.responses.route import delete_response, responses, show_response
from mlx_agent_llm.server.service import Service

ROUTES = [
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/responses/{id}", show_response),
    Route("/v1/responses/{id}", delete_response, methods=["DELETE"]),
    Route("/v1/chat/completions/{id}", cancel_reply, methods=["DELETE"]),
    Route("/v1/completions/{id}", cancel_reply, methods=["DELETE"]),
    Route("/v1/messages", messages, methods=["POST"]),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/v1/messages/{id}", cancel_reply, methods=["DELETE"]),
    Route("/v1/engine/describe", describe, methods=["POST"]),
    Route("/v1/engine/count", count, methods=["POST"]),
    Route("/v1/engine/chat", engine_chat, methods=["POST"]),
    Route("/v1/engine/stream", engine_stream, methods=["POST"]),
    Route("/v1/engine/generate", engine_generate, methods=["POST"]),
    Route("/v1/models", list_models),
    Route("/v1/models/{model:path}", show_model),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/rerank", rerank, methods=["POST"]),
    Route("/v1/tokenize", tokenize, methods=["POST"]),
    Route("/v1/detokenize", detokenize, methods=["POST"]),
    Route("/health", health),
    Route("/metrics", metrics),
    *(Route(path, show_page) for path in sorted(PATHS)),
]


def make_app(service: Service, keys: Keys | None = None, *, is_loopback: bool = True) -> Gate:
    """The application of a service.

    keys: those that let a client in. is_loopback: whether it is bound to an address that only this machine reaches.
    """
    app = Starlette(routes=ROUTES, lifespan=_lifespan, exception_handlers=_HANDLERS)
    app.state.service = service
    return Gate(app, keys or Keys(), service.settings, is_loopback=is_loopback, open_paths=PATHS | {"/health"})


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Close what was loaded."""
    yield
    service = cast(Service, app.state.service)
    await asyncio.to_thread(service.models.close)


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return JSONResponse(error.envelope(request.url.path), error.status, headers=error.headers)


async def _answer_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MLXAgentError)
    return await _answer_api_error(request, api_error_of(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    return await _answer_api_error(request, APIError(error.status_code, message, code="unknown_route"))


async def _answer_fault(request: Request, error: Exception) -> Response:
    return await _answer_api_error(request, APIError(500, "internal error", code="internal_error"))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


_HANDLERS = {
    APIError: _answer_api_error,
    MLXAgentError: _answer_engine_error,
    HTTPException: _answer_http_error,
    ClientGoneError: _answer_nobody,
    Exception: _answer_fault,
}

"""The routes that say which models there are, and how the server is."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.served_models import DEFAULT, ServedModel
from mlx_agent_llm.server.service import Service, service_of


async def list_models(request: Request) -> Response:
    """All names that a request may have as its model."""
    return JSONResponse({"object": "list", "data": _entries(service_of(request))})


async def show_model(request: Request) -> Response:
    """One of them."""
    name = request.path_params["model"]
    for entry in _entries(service_of(request)):
        if entry["id"] == name:
            return JSONResponse(entry)
    raise APIError(404, f"model={name!r} is not served", "model", "model_not_found")


async def health(request: Request) -> Response:
    """Whether requests are served now; 503 while the first model is not loaded yet, and when it could not be."""
    first = service_of(request).models.models[0]
    status = {"loaded": "ok", "unloaded": "ok"}.get(first.state, first.state)
    return JSONResponse({"status": status}, 200 if status == "ok" else 503)


def _entries(service: Service) -> list[dict[str, Any]]:
    chats = [_chat_entry(model, model.name) for model in service.models.models]
    default = _chat_entry(service.models.models[0], DEFAULT)
    return [*chats, default, *_other_entries(service)]


def _chat_entry(model: ServedModel, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": name, "object": "model", "created": model.created, "owned_by": "mlx-agent"}
    entry |= {"root": model.name, "state": model.state, "capabilities": ["completion"]}
    if model.engine is not None:
        has_template = model.engine.tokenizer.chat_template is not None
        entry["capabilities"] = (
            ["completion", "chat", "tools", "structured_outputs"] if has_template else ["completion"]
        )
        entry["max_model_len"] = model.engine.max_model_len
        if has_template and model.engine.can_reason:
            entry["capabilities"].append("reasoning")
    return entry


def _other_entries(service: Service) -> list[dict[str, Any]]:
    common = {"object": "model", "created": service.models.models[0].created, "owned_by": "mlx-agent"}
    entries: list[dict[str, Any]] = []
    if (embedder := service.embedder) is not None:
        sizes = {"max_model_len": embedder.max_tokens, "dimensions": embedder.dimensions}
        entries.append({"id": embedder.model_name, **common, "capabilities": ["embeddings"], **sizes})
    if service.reranker is not None:
        entries.append({"id": service.reranker.model_name, **common, "capabilities": ["rerank"]})
    return entries

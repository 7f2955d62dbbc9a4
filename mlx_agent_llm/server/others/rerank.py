"""The route of ranking, in the form of Cohere's and Jina's clients."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.embedder import Reranker
from mlx_agent_llm.server.api_error import APIError, invalid
from mlx_agent_llm.server.body import Fields, check_count, read_fields
from mlx_agent_llm.server.service import Service, service_of


class RankedInput(Fields):
    """A document as an object."""

    text: str


class RerankRequest(Fields):
    """A query, and what is ranked by how well it answers."""

    model: str
    query: str
    documents: list[str | RankedInput]
    top_n: int | None = None
    return_documents: bool = False


async def rerank(request: Request) -> Response:
    """The documents' places in the request, the best first; one that the model would not read whole is refused."""
    service = service_of(request)
    fields = await read_fields(request, RerankRequest, service.settings)
    reranker = _reranker(service, fields.model)
    check_count("documents", len(fields.documents), service.settings.max_prompts)
    texts = [document if isinstance(document, str) else document.text for document in fields.documents]
    tokens = await asyncio.to_thread(reranker.tokenize, fields.query, texts)
    if tokens.truncated:
        message = f"documents[{tokens.truncated[0]}] must be at most {reranker.max_tokens} tokens with the query"
        raise invalid(message, "documents", "input_too_long")
    results: list[dict[str, Any]] = []
    for ranked in await reranker.arank_tokens(tokens, fields.top_n):
        document = {"document": {"text": texts[ranked.index]}} if fields.return_documents else {}
        results.append({"index": ranked.index, "relevance_score": float(ranked.score), **document})
    return JSONResponse({"id": f"rerank-{uuid4().hex}", "model": reranker.model_name, "results": results})


def _reranker(service: Service, model: str) -> Reranker:
    reranker = service.reranker
    if reranker is not None and model in (reranker.model_name, "default"):
        return reranker
    if any(model == served.name for served in service.models.models):
        raise invalid(f"model={model!r} is a chat model: it does not rank", "model", "wrong_model_kind")
    known = "none" if reranker is None else repr(reranker.model_name)
    raise APIError(404, f"model={model!r} is not served; known rerankers: {known}", "model", "model_not_found")

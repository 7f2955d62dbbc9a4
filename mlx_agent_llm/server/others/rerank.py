"""The route of ranking, in the form of Cohere's and Jina's clients."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.body import Fields, read_fields
from mlx_agent_llm.server.service import service_of


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
    """The documents' places in the request, the best first."""
    service = service_of(request)
    fields = await read_fields(request, RerankRequest, service.settings)
    ranker = service.reranker
    if ranker is None or fields.model not in (ranker.model_name, "default"):
        known = "none" if ranker is None else repr(ranker.model_name)
        raise APIError(
            404, f"model={fields.model!r} is not served; known rerankers: {known}", "model", "model_not_found"
        )
    texts = [document if isinstance(document, str) else document.text for document in fields.documents]
    results: list[dict[str, Any]] = []
    for ranked in await ranker.arank(fields.query, texts, fields.top_n):
        document = {"document": {"text": texts[ranked.index]}} if fields.return_documents else {}
        results.append({"index": ranked.index, "relevance_score": float(ranked.score), **document})
    return JSONResponse({"id": f"rerank-{uuid4().hex}", "model": ranker.model_name, "results": results})

"""The route of ranking, in the form of Cohere's and Jina's clients."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.body import Fields, check_count, read_fields
from mlx_agent_llm.server.others.text_models import text_model
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
    """The documents' places in the request, the best first; one that the model would not read whole is refused."""
    service = service_of(request)
    fields = await read_fields(request, RerankRequest, service.settings)
    reranker = text_model(service, service.reranker, fields.model, verb="rank", kinds="rerankers")
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

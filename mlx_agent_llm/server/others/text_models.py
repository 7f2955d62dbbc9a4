"""The models that read texts and write none: found by name, as those that generate are."""

from __future__ import annotations

from typing import TypeVar

from mlx_agent_llm.embedder import Embedder, Reranker
from mlx_agent_llm.server.api_error import APIError, invalid
from mlx_agent_llm.server.service import Service

M = TypeVar("M", Embedder, Reranker)


def text_model(service: Service, served: M | None, name: str, *, verb: str, kinds: str) -> M:
    """The one that is served, if the name is its own or "default"; verb, kinds: what it does and is, for errors.

    A chat model is a 400, an unknown name a 404 that names what there is.
    """
    if served is not None and name in (served.model_name, "default"):
        return served
    if any(name == chat_model.name for chat_model in service.models.models):
        raise invalid(f"model={name!r} is a chat model: it does not {verb}", "model", "wrong_model_kind")
    known = "none" if served is None else repr(served.model_name)
    raise APIError(404, f"model={name!r} is not served; known {kinds}: {known}", "model", "model_not_found")

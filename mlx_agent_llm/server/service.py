"""What all routes share: the models, the bounds, what is remembered, and the replies that are being written."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from uuid import uuid4

from starlette.requests import Request

from mlx_agent_llm.embedder import Embedder, Reranker
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.gate import visit_of
from mlx_agent_llm.server.replies import ChatCall, Replies, start_replies
from mlx_agent_llm.server.response_store import ResponseStore
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.settings import ServerSettings


class OpenReplies:
    """The replies that are being written, by the id that their client knows, for whose owner only."""

    def __init__(self) -> None:
        self._replies: dict[tuple[str, str], Callable[[], None]] = {}

    def add(self, owner: str, reply_id: str, cancel: Callable[[], None], held: ExitStack) -> None:
        """Let them be cancelled until `held` is closed."""
        self._replies[owner, reply_id] = cancel
        held.callback(self._replies.pop, (owner, reply_id))

    def cancel(self, owner: str, reply_id: str) -> bool:
        """End them; False where there are none of this id."""
        cancel = self._replies.get((owner, reply_id))
        if cancel is not None:
            cancel()
        return cancel is not None


@dataclass
class Service:
    """One server's state; embedder, reranker: models that are served beside those that generate, by their own names."""

    models: ServedModels
    settings: ServerSettings
    embedder: Embedder | None = None
    reranker: Reranker | None = None
    open_replies: OpenReplies = field(default_factory=OpenReplies)
    stored: ResponseStore = field(init=False)

    def __post_init__(self) -> None:
        self.stored = ResponseStore(self.settings.max_stored_responses, self.settings.max_stored_bytes)


@dataclass(frozen=True)
class Started:
    """Replies that were started: their id, the second they began in, and who writes them."""

    id: str
    created: int
    model: str
    engine: Engine
    replies: Replies


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


async def borrow_engine(request: Request, model: str) -> tuple[str, Engine]:
    """A model's own name and its engine, which are held until the response has ended."""
    service = service_of(request)
    others = {one.model_name for one in (service.embedder, service.reranker) if one is not None}
    if model in others:
        raise invalid(f"model={model!r} does not generate: it embeds or ranks", "model", "wrong_model_kind")
    served, engine = await service.models.borrow(model, visit_of(request).held)
    return served.name, engine


async def start_chat(request: Request, model: str, call: ChatCall, prefix: str) -> Started:
    """Start the replies to a call; prefix: of the id that they get."""
    service, visit = service_of(request), visit_of(request)
    name, engine = await borrow_engine(request, model)
    replies = await start_replies(engine, call, service.settings, visit.held)
    started = Started(f"{prefix}{uuid4().hex}", int(time.time()), name, engine, replies)
    service.open_replies.add(visit.owner, started.id, replies.cancel, visit.held)
    return started

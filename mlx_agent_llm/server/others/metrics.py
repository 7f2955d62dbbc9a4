"""The route that Prometheus reads."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.service import service_of


async def metrics(request: Request) -> Response:
    """The counts of all models that are loaded."""
    try:
        from mlx_agent_llm.metrics import CONTENT_TYPE, exposition
    except ImportError as error:
        raise APIError(501, str(error), code="metrics_not_installed") from None
    engines = [model.engine for model in service_of(request).models.models if model.engine is not None]
    return Response(exposition(*engines), headers={"content-type": CONTENT_TYPE})

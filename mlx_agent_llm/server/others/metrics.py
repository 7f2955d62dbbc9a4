"""The route that Prometheus reads."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.service import service_of


async def metrics(request: Request) -> Response:
    """What all models have counted, those that are unloaded, too."""
    try:
        from mlx_agent_llm.metrics import CONTENT_TYPE, Counted, exposition_of_counts
    except ImportError as error:
        raise APIError(501, str(error), code="metrics_not_installed") from None
    models = service_of(request).models.models
    counted = [Counted(model.name, model.stats(), model.engine is not None) for model in models]
    return Response(exposition_of_counts(counted), headers={"content-type": CONTENT_TYPE})

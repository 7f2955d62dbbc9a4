"""The engine's errors as JSON: a client raises what the engine raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_agent_llm import errors
from mlx_agent_llm.errors import (
    EngineClosedError,
    GenerationError,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
)

_KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MLXAgentError) and kind is not MLXAgentError
}
_BY_STATUS: Mapping[int, type[MLXAgentError]] = {
    429: QueueFullError,
    499: EngineClosedError,
    503: EngineClosedError,
    504: RequestTimeout,
}


def json_of_error(error: MLXAgentError) -> dict[str, Any]:
    """The class of an error, its message, and the fields that it has beside them."""
    return {"kind": type(error).__name__, "message": str(error), "details": vars(error)}


def error_of_json(value: Mapping[str, Any], status: int) -> MLXAgentError:
    """The error to raise; one of no kind is the server's own, and its status says which of ours it is."""
    message = str(value.get("message", f"the server answered with status {status}"))
    kind = _KINDS.get(str(value.get("kind"))) or _kind_of(status, value.get("code"))
    error = kind.__new__(kind, message)  # whatever its __init__ asks for
    vars(error).update(value.get("details") or {})
    return error


def _kind_of(status: int, code: object) -> type[MLXAgentError]:
    if code == "model_not_found":
        return ModelLoadError
    return _BY_STATUS.get(status) or (RequestError if 400 <= status < 500 else GenerationError)

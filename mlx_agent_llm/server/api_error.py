"""What a client is told of a request that failed, in the envelope of the API that it speaks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from mlx_agent_llm.errors import (
    CapacityError,
    ContextLengthError,
    EngineClosedError,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
)
from mlx_agent_llm.request import FinishReason
from mlx_agent_llm.wire import json_of_error

_RETRY_SECONDS = 1
_PARAMETER = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*)=")  # how the engine's messages begin
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass
class APIError(Exception):
    """A status, a message for people, the parameter that it is about, and a code for programs.

    retry_after: seconds after which the same request may succeed. cause: the engine's error that it tells of.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: int | None = None
    cause: MLXAgentError | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def headers(self) -> dict[str, str]:
        """Those of the response beside its envelope."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

    @property
    def openai_envelope(self) -> dict[str, Any]:
        """The body that OpenAI's clients read."""
        kind = "rate_limit_error" if self.status == 429 else "server_error" if self.status >= 500 else None
        kind = kind or ("authentication_error" if self.status == 401 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def anthropic_envelope(self) -> dict[str, Any]:
        """The body that Anthropic's clients read."""
        kind = _ANTHROPIC_TYPES.get(self.status) or ("api_error" if self.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    @property
    def engine_envelope(self) -> dict[str, Any]:
        """The body that the engine's own clients read."""
        told = {"message": self.message} if self.cause is None else json_of_error(self.cause)
        return {"error": {**told, "code": self.code}}

    def envelope(self, path: str) -> dict[str, Any]:
        """The body for a request of this path."""
        if path.startswith("/v1/engine/"):
            return self.engine_envelope
        return self.anthropic_envelope if path.startswith("/v1/messages") else self.openai_envelope


def invalid(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """A request that is wrong whenever it is sent."""
    return APIError(400, message, param, code)


def check_not_cancelled(finish_reason: FinishReason | None) -> None:
    """Raise an APIError for what was ended by its id."""
    if finish_reason == "cancelled":
        raise APIError(499, "the request was cancelled", code="cancelled")


def api_error_of(error: MLXAgentError) -> APIError:
    """What a client is told of an error of the engine."""
    return replace(_told(error), cause=error)


def _told(error: MLXAgentError) -> APIError:
    message = str(error)
    found = _PARAMETER.match(message)
    match error:
        case ContextLengthError():
            return invalid(message, "messages", "context_length_exceeded")
        case RequestError():
            return invalid(message, found and found[1], "invalid_value")
        case QueueFullError():
            return APIError(429, message, code="queue_full", retry_after=_RETRY_SECONDS)
        case CapacityError():
            return invalid(message, code="context_length_exceeded")
        case RequestTimeout():
            return APIError(504, message, code="timeout")
        case EngineClosedError():
            return APIError(503, "the server is shutting down", code="shutting_down")
        case ModelLoadError():
            return APIError(503, message, code="model_not_loaded")
        case _:
            return APIError(500, message, code="engine_error")


def api_error_of_validation(error: ValidationError) -> APIError:
    """The first thing that is wrong with a request's fields."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in _named(first["loc"])).lstrip(".")
    if first["type"] == "extra_forbidden":
        return invalid(f"unknown parameter: {place}", place, "unknown_parameter")
    if first["type"] == "missing":
        return invalid(f"missing parameter: {place}", place, "missing_required_parameter")
    return invalid(f"{place}={first['input']!r:.200}: {first['msg']}", place, "invalid_value")


def _named(location: tuple[int | str, ...]) -> list[int | str]:
    """The place without the names that pydantic gives the alternatives of a union."""
    return [key for key in location if isinstance(key, int) or re.fullmatch(r"[a-z_]+", key)]

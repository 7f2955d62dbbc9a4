"""A request's body: read within its bounds, and checked before anything is made of it."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from mlx_agent_llm.server.api_error import APIError, api_error_of_validation, invalid
from mlx_agent_llm.server.settings import ServerSettings


class Fields(BaseModel):
    """The parameters of a request: others are refused by name, and values of another type are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


F = TypeVar("F", bound=Fields)


async def read_fields(request: Request, kind: type[F], settings: ServerSettings) -> F:
    """The parameters in a request's body; an APIError says what is wrong with them."""
    try:
        return kind.model_validate(await read_json(request, settings))
    except ValidationError as error:
        raise api_error_of_validation(error) from None


async def read_json(request: Request, settings: ServerSettings) -> dict[str, Any]:
    """The JSON object in a request's body; an APIError where it is none, too large, too deep or no text."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":  # also what makes browsers ask before they send for a foreign page
        raise APIError(415, f"content-type={media_type!r} must be 'application/json'", code="unsupported_media_type")
    body = await _read_bytes(request, settings.max_body_bytes)
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 at byte {error.start}", code="invalid_json") from None
    except RecursionError:
        raise invalid(f"the body is nested more than {settings.max_depth} levels deep", code="invalid_json") from None
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    _check_values(value, settings.max_depth)
    return value


def check_count(name: str, count: int, most: int) -> None:
    """Raise an APIError where a list is too long."""
    if count > most:
        raise invalid(f"{name} holds {count} items: must be at most {most}", name, "invalid_value")


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    pieces = bytearray()
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > max_bytes:
            raise APIError(413, f"the body must be at most {max_bytes} bytes", code="request_too_large")
    return bytes(pieces)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _check_values(root: dict[str, Any], max_depth: int) -> None:
    """Raise for what no part of a request may hold, wherever it stands."""
    left: list[tuple[str, Any, int]] = [("", root, 1)]
    while left:
        place, value, depth = left.pop()
        if depth > max_depth:
            raise invalid(f"{place} is nested more than {max_depth} levels deep", place, "invalid_json")
        if isinstance(value, dict):
            for key in value:
                _check_text(key, place)
            left += [(f"{place}.{key}".lstrip("."), inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [(f"{place}[{index}]", inner, depth + 1) for index, inner in enumerate(value)]
        elif isinstance(value, str):
            _check_text(value, place)
        elif isinstance(value, float) and not math.isfinite(value):
            raise invalid(f"{place} is too large for a number", place, "invalid_json")


def _check_text(text: str, place: str) -> None:
    if "\0" in text:
        raise invalid(f"{place} holds a NUL character at index {text.index(chr(0))}", place, "invalid_json")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"{place} holds a lone surrogate at index {error.start}", place, "invalid_json") from None

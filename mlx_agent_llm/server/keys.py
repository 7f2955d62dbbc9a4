"""Who may use the server: keys from a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers

from mlx_agent_llm.server.api_error import APIError

ANYBODY = "anybody"


class Keys:
    """The keys that let a client in; without any, everybody is. They are kept as digests, and never shown."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """The keys of a file, one a line; empty lines and those that begin with # are none."""
        lines = [line.strip() for line in path.read_text().splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ValueError(f"api_key_file={path} holds no key")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, headers: Headers) -> str:
        """A name for whoever sent these headers: of their key, but not the key; a wrong one is a 401."""
        if not self._digests:
            return ANYBODY
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = _digest(token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]  # all of them: no early end
        if not any(matches):
            raise APIError(
                401, "a wrong API key, or none: send it as 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
        return given.hex()[:16]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()

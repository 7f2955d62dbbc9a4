"""JSON values as keys: equal texts for equal values."""

from __future__ import annotations

import json
import marshal
from functools import lru_cache
from typing import Any

from mlx_agent_llm.errors import ConstraintError


def content_key(kind: str, content: Any) -> str:
    """The key of a JSON value, equal for equal ones; property order counts, because the grammar keeps it."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        text.encode()  # a lone surrogate is not text
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"{kind} is not JSON: {error}") from error
    return f"{kind}:{text}"


def kept_key(kind: str, content: Any) -> str:
    """`content_key` of a large value that comes again with many others; the latest are kept, as one text each."""
    try:
        return _key_of(
            kind, marshal.dumps(content, 2)
        )  # five times as fast as JSON; of version 2 the same for equal ones
    except ValueError:  # kinds of dict and list that marshal does not know, or what is no JSON
        return content_key(kind, content)


@lru_cache(maxsize=64)
def _key_of(kind: str, content: bytes) -> str:
    return content_key(kind, marshal.loads(content))

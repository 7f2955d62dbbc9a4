"""Conversations that later requests go on from by an id; in memory, within bounds, the oldest forgotten first."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple


class StoredResponse(NamedTuple):
    """The turns up to a response, its own among them, and the response as its client got it."""

    messages: list[dict[str, Any]]
    response: dict[str, Any]
    num_bytes: int


class ResponseStore:
    """Holds the last max_responses responses of all owners, or as many as fit into max_bytes."""

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._stored: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    def put(self, owner: str, messages: Sequence[dict[str, Any]], response: dict[str, Any]) -> None:
        """Remember a response by its id; one that is larger than everything may be is not remembered."""
        num_bytes = len(json.dumps([messages, response]))
        self._stored[owner, response["id"]] = StoredResponse(list(messages), response, num_bytes)
        self.num_bytes += num_bytes
        while len(self._stored) > self._max_responses or self.num_bytes > self._max_bytes:
            _, oldest = self._stored.popitem(last=False)
            self.num_bytes -= oldest.num_bytes

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """What is remembered of an owner's response."""
        return self._stored.get((owner, response_id))

    def remove(self, owner: str, response_id: str) -> bool:
        """Forget a response; False where there is none."""
        stored = self._stored.pop((owner, response_id), None)
        self.num_bytes -= stored.num_bytes if stored is not None else 0
        return stored is not None

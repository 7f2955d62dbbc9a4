"""Where the turns of a conversation stand in the request that they came by: what is wrong with one is told by that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlx_agent_llm.errors import RequestError

_PLACE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?")  # how the engine's messages about turns begin


class PlacedTurn(NamedTuple):
    """A turn as the engine reads it, and where it and each of its calls stand in the request."""

    turn: dict[str, Any]
    place: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """The turns of a request in order; names: of fields, the engine's to the API's."""

    turns: Sequence[PlacedTurn]
    names: Mapping[str, str]

    def told(self, message: str) -> str:
        """The engine's message, about the request."""
        found = _PLACE.match(message)
        if found is None:
            return self._renamed(message)
        one = self.turns[int(found[1])]
        place = one.place if found[2] is None else one.calls[int(found[2])]
        return place + self._renamed(message[found.end() :])

    def _renamed(self, message: str) -> str:
        for name, sent in self.names.items():
            if message.startswith(name):
                return sent + message.removeprefix(name)
        return message


@contextmanager
def told_by(places: Places | None) -> Iterator[None]:
    """Errors name what the request has by its place and name there; without places they stand as they are."""
    try:
        yield
    except RequestError as error:
        if places is None or type(error) is not RequestError:
            raise
        raise RequestError(places.told(str(error))) from error

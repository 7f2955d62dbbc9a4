"""Which keys are in which segments, and which segment goes first. Knows no files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from mlx_agent_llm.core.kv.tier.segment import KEY_BYTES, Entry, Segment

ROOT = bytes(KEY_BYTES)  # what the first key of a chain follows


class Place(NamedTuple):
    """An entry and the segment that it is in."""

    segment: Segment
    entry: Entry


class Catalogue:
    """Segments by name and entries by key. A segment follows another one if its parent is a key of that one."""

    def __init__(self) -> None:
        self.segments: dict[str, Segment] = {}
        self.last_used: dict[str, int] = {}
        self.num_bytes = 0
        self._places: dict[bytes, list[Place]] = {}
        self._following: defaultdict[bytes, set[str]] = defaultdict(set)
        self._now = 0

    def add(self, segment: Segment, last_used: int | None = None) -> None:
        """Take a segment in, used just now or at that tick; what is there already stays there, too."""
        name = segment.path.name
        self.segments[name], self.last_used[name] = segment, self._tick() if last_used is None else last_used
        self._now = max(self._now, self.last_used[name])
        self.num_bytes += segment.num_bytes
        self._following[segment.parent].add(name)
        for entry in segment.entries:
            self._places.setdefault(entry.key, []).append(Place(segment, entry))

    def find(self, key: bytes) -> Place | None:
        """Where the bytes of a key are."""
        return self._places[key][0] if key in self._places else None

    def touch(self, keys: Iterable[bytes]) -> None:
        """The segments of these keys are used just now."""
        now = self._tick()
        for key in keys:
            if (place := self.find(key)) is not None:
                self.last_used[place.segment.path.name] = now

    def remove(self, name: str) -> list[Segment]:
        """Take a segment out, with all that follow it; those that were there, the last ones first."""
        segment = self.segments.pop(name, None)
        if segment is None:
            return []
        del self.last_used[name]
        self.num_bytes -= segment.num_bytes
        self._following[segment.parent].discard(name)
        if not self._following[segment.parent]:
            del self._following[segment.parent]
        removed = [each for other in self._followers(segment) for each in self.remove(other)]
        for entry in segment.entries:
            self._places[entry.key].remove(Place(segment, entry))
            if not self._places[entry.key]:
                del self._places[entry.key]
        return [*removed, segment]

    def drop_orphans(self) -> None:
        """Take out what follows nothing that is there."""
        for name, segment in list(self.segments.items()):
            if segment.parent != ROOT and self.find(segment.parent) is None:
                self.remove(name)

    def least_recently_used(self, kept: Iterable[bytes]) -> Segment | None:
        """The one that goes next: of those that none follows; the segments of the keys `kept` stay."""
        keep = {place.segment.path.name for place in map(self.find, kept) if place is not None}
        names = (name for name, each in self.segments.items() if name not in keep and not self._followers(each))
        name = min(names, key=self.last_used.__getitem__, default=None)
        return None if name is None else self.segments[name]

    def _followers(self, segment: Segment) -> list[str]:
        return [name for entry in segment.entries for name in sorted(self._following.get(entry.key, ()))]

    def _tick(self) -> int:
        self._now += 1
        return self._now

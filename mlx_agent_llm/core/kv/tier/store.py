"""The store of a tier: bytes by key, in the segments of a folder that several processes may read and one writes.

Whatever is wrong with a file is a miss: its segment is dropped, with those that follow it. What is wrong with the disk
ends the writing, said once, and nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from mlx_agent_llm.core.kv.tier.catalogue import ROOT, Catalogue, Place
from mlx_agent_llm.core.kv.tier.folder import TierFolder
from mlx_agent_llm.core.kv.tier.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from mlx_agent_llm.core.kv.tier.segment import (
    Bytes,
    DamagedSegmentError,
    Part,
    Segment,
    read_entries,
    read_table,
    segment_bytes,
    write_segment,
)
from mlx_agent_llm.errors import KVTierError

_log = logging.getLogger(__name__)


class TierStore:
    """Finds, reads, writes and evicts; any thread may ask.

    max_bytes: of all segments together. model: the fingerprint, 16 bytes, of whose KV this one writes; description:
    what it is called where people look.
    """

    def __init__(self, path: Path, max_bytes: int, model: bytes, description: str) -> None:
        self.fault: str | None = None  # why nothing is written any more
        self.pinned: frozenset[bytes] = frozenset()  # keys that are not evicted
        self._folder = TierFolder(path)
        self.max_bytes = max_bytes
        self._model, self._description = model, description
        self._lock = threading.RLock()  # of the catalogue
        self._writing = threading.RLock()  # of the files; taken before the other one
        self._models: dict[str, str] = {}
        self._shunned: set[str] = set()  # segments that another process may go on listing
        self._is_writer = False
        self._seen: tuple[int, ...] = ()  # what tells the manifest that was read from a later one
        self._catalogue = Catalogue()
        self._read_manifest()
        self.become_writer()

    def become_writer(self) -> bool:
        """Whether this process writes: from the moment on at which no other one does; it reads files then."""
        with self._writing:
            if not self._is_writer and self.fault is None and self._folder.lock():
                self._is_writer = True
                self._read_manifest_again()
                with suppress(OSError):
                    self._sweep()
            return self.is_writer

    def refresh(self) -> None:
        """Take in what another process has written meanwhile; it reads files."""
        with self._writing:
            if not self._is_writer and self._stamp() != self._seen:
                self._read_manifest_again()

    def has(self, key: bytes) -> bool:
        """Whether the bytes of a key are there, as far as one knows before they are read."""
        with self._lock:
            return self._catalogue.find(key) is not None

    def length(self, key: bytes) -> int:
        """How many bytes a key has; 0 where it is not there."""
        with self._lock:
            place = self._catalogue.find(key)
        return 0 if place is None else place.entry.length

    def touch(self, keys: Iterable[bytes]) -> None:
        """These were used just now."""
        with self._lock:
            self._catalogue.touch(keys)

    def read(self, keys: Sequence[bytes]) -> list[Bytes | None]:
        """The bytes of each key, None of one that is not there or not what was written."""
        with self._lock:
            places = [self._catalogue.find(key) for key in keys]
        contents: list[Bytes | None] = []
        for _, group in groupby(places, key=lambda place: None if place is None else place.segment.path):
            contents += self._read_places(list(group))
        return contents

    def put(self, parent: bytes, parts: Sequence[Part]) -> bool:
        """Write entries that follow `parent`, a key that is there or ROOT; whether they are there now."""
        with self._writing:
            if not self.become_writer() or not (parent == ROOT or self.has(parent)):
                return False
            try:
                return self._put(parent, parts)
            except OSError as error:
                self._stop(f"{error.strerror or error}")
                return False

    def forget(self, keys: Iterable[bytes]) -> None:
        """Let nobody find these any more, nor what follows them."""
        with self._writing:
            with self._lock:
                places = [self._catalogue.find(key) for key in keys]
            for place in places:
                if place is not None:
                    self._drop(place.segment)

    def clear(self) -> None:
        """Forget everything of this model."""
        with self._writing:
            with self._lock:
                segments = list(self._catalogue.segments.values())
            for segment in segments:
                if segment.model == self._model:
                    self._drop(segment)

    def make_room(self, num_bytes: int, parent: bytes = ROOT) -> bool:
        """Evict until so many bytes fit; False where nothing is left but what `parent` needs or is pinned."""
        while self._catalogue.num_bytes + num_bytes > self.max_bytes:
            with self._lock:
                last = self._catalogue.least_recently_used(kept=self.pinned | {parent})
            if last is None:
                return False
            self._drop(last)
        return True

    def close(self) -> None:
        """Keep what was used when, and let another process write."""
        with self._writing:
            with suppress(OSError):
                if self._is_writer and self._folder.is_locked():
                    self._write_manifest()
            self._is_writer = False
            self._folder.unlock()

    @property
    def is_writer(self) -> bool:
        """Whether this process writes."""
        return self._is_writer and self.fault is None

    @property
    def num_bytes(self) -> int:
        """Of all segments."""
        return self._catalogue.num_bytes

    def _put(self, parent: bytes, parts: Sequence[Part]) -> bool:
        num_bytes = segment_bytes([len(content) for _, content in parts])
        if not self._folder.is_locked():
            self._stop("the folder was replaced by another one")
            return False
        if not self.make_room(num_bytes, parent):
            return False
        if self._folder.free_bytes() < 2 * num_bytes:
            self._stop("the disk is full")
            return False
        path = self._folder.new_segment()
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            written = write_segment(temporary, self._model, parent, parts)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        with self._lock:
            self._catalogue.add(written._replace(path=path))
            self._models[self._model.hex()] = self._description
        self._write_manifest()
        return True

    def _read_places(self, places: Sequence[Place | None]) -> list[Bytes | None]:
        """Those of one segment, or none at all."""
        first = places[0]
        if first is None:
            return [None] * len(places)
        try:
            return list(read_entries(first.segment, [place.entry for place in places if place is not None]))
        except (OSError, DamagedSegmentError) as error:
            _log.warning("kv_tier: %s: what it held is computed anew", error)
            self._drop(first.segment)
            return [None] * len(places)

    def _drop(self, segment: Segment) -> None:
        """Take a segment out and, where this process writes, from the disk, which no look-up waits for."""
        with self._lock:
            removed = self._catalogue.remove(segment.path.name)
            self._shunned.update(each.path.name for each in removed)
        for each in removed if self._is_writer else ():
            with suppress(OSError):
                each.path.unlink()

    def _read_manifest(self) -> None:
        """Know what the manifest lists, or, where there is none that can be read, the segments that are there."""
        self._seen = self._stamp()
        manifest = read_manifest(self._folder.path)
        if manifest is None:
            manifest = Manifest({path.name: 0 for path in self._segment_paths()})
        with self._lock:  # it is held for what is in memory alone
            known, shunned = dict(self._catalogue.segments), set(self._shunned)
        catalogue = Catalogue()
        for name, last_used in manifest.last_used.items():
            with suppress(OSError, DamagedSegmentError):
                if name not in shunned:
                    segment = known[name] if name in known else read_table(self._folder.path / name)
                    catalogue.add(segment, last_used)
        with self._lock:
            for name in self._shunned - shunned:
                catalogue.remove(name)
            catalogue.drop_orphans()
            self._models, self._catalogue = dict(manifest.models), catalogue

    def _read_manifest_again(self) -> None:
        """One that a newer version has put there meanwhile is no error any more: nothing of it is found."""
        try:
            self._read_manifest()
        except KVTierError as error:
            self._catalogue = Catalogue()
            self._stop(str(error))

    def _sweep(self) -> None:
        """Remove what writers left that were ended, and what no manifest lists or what is damaged."""
        if self.fault is not None:
            return
        for path in self._folder.temporaries():
            path.unlink(missing_ok=True)
        for path in self._segment_paths():
            if path.name not in self._catalogue.segments:
                path.unlink(missing_ok=True)

    def _write_manifest(self) -> None:
        with self._lock:
            used = {segment.model.hex() for segment in self._catalogue.segments.values()}
            models = {model: text for model, text in self._models.items() if model in used}
            manifest = Manifest(dict(self._catalogue.last_used), models)
        write_manifest(self._folder.path, manifest)

    def _segment_paths(self) -> list[Path]:
        with suppress(OSError):
            return self._folder.segments()
        return []

    def _stamp(self) -> tuple[int, ...]:
        """What changes with each manifest that is put in the place of another one."""
        with suppress(OSError):
            found = (self._folder.path / MANIFEST_NAME).stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return ()

    def _stop(self, reason: str) -> None:
        self.fault = reason
        _log.warning("kv_tier=%s: nothing more is written: %s", self._folder.path, reason)

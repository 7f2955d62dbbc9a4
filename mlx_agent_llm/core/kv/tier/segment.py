"""A segment: one immutable file with some blocks that follow each other in one chain.

Little endian: a header, a table with a row for each entry, and the entries' bytes, with nothing between them. The
header's checksum covers the header and the table, a row's the entry's bytes, and the size is in the header: there is no
bit that could flip unseen. All checksums are XXH3's of 128 bits (Collet, xxHash).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

VERSION = 1
KEY_BYTES = 16
_MAGIC = b"MLXKVSEG"
_HEADER = struct.Struct("<8sIIQ16s16s")  # magic, version, number of entries, size, model, parent
_ROW = struct.Struct("<16s16sQ")  # key, checksum, length
_CHECKSUM_BYTES = 16

Bytes = npt.NDArray[np.uint8]


class DamagedSegmentError(Exception):
    """A segment, or an entry of it, is not what was written."""


class Part(NamedTuple):
    """An entry before it is written: (length,) bytes and the key that they are found by."""

    key: bytes
    content: Bytes


class Entry(NamedTuple):
    """Where the bytes of a key are in a segment, and their checksum."""

    key: bytes
    checksum: bytes
    offset: int
    length: int


class Segment(NamedTuple):
    """The table of a segment. model: whose KV it is; parent: the key before its first one in the chain, or zeros."""

    path: Path
    model: bytes
    parent: bytes
    num_bytes: int
    entries: tuple[Entry, ...]


def segment_bytes(lengths: Sequence[int]) -> int:
    """The size of a segment with entries of these lengths."""
    return _table_end(len(lengths)) + sum(lengths)


def write_segment(path: Path, model: bytes, parent: bytes, parts: Sequence[Part]) -> Segment:
    """Write a new file, readable by its owner alone; an OSError leaves what was written of it."""
    num_bytes = segment_bytes([len(content) for _, content in parts])
    head = _HEADER.pack(_MAGIC, VERSION, len(parts), num_bytes, model, parent)
    rows = [_ROW.pack(key, xxh3_128_digest(content.data), len(content)) for key, content in parts]
    table = head + b"".join(rows)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with FileIO(descriptor, "wb") as file:
        _write_all(file.fileno(), xxh3_128_digest(table) + table)
        for _, content in parts:
            _write_all(file.fileno(), content.data)
    return _segment(path, table)


def read_table(path: Path) -> Segment:
    """The table of a segment that is there; DamagedSegmentError or an OSError when it is not whole."""
    with _open(path) as file:
        found = file.read(_CHECKSUM_BYTES + _HEADER.size)
        if len(found) < _CHECKSUM_BYTES + _HEADER.size:
            raise DamagedSegmentError(f"{path}: its header ends early")
        magic, version, num_entries, num_bytes, _, _ = _HEADER.unpack(found[_CHECKSUM_BYTES:])
        size = os.fstat(file.fileno()).st_size
        if magic != _MAGIC or version != VERSION or num_bytes != size or _table_end(num_entries) > size:
            raise DamagedSegmentError(f"{path}: its header or its size is wrong")
        found += file.read(_ROW.size * num_entries)
    if xxh3_128_digest(found[_CHECKSUM_BYTES:]) != found[:_CHECKSUM_BYTES]:
        raise DamagedSegmentError(f"{path}: its table is wrong")
    return _segment(path, found[_CHECKSUM_BYTES:])


def read_entries(segment: Segment, entries: Sequence[Entry]) -> list[Bytes]:
    """The bytes of some entries; DamagedSegmentError or an OSError when one of them is not what was written."""
    with _open(segment.path) as file:
        return [_read_entry(file.fileno(), segment, entry) for entry in entries]


def _read_entry(descriptor: int, segment: Segment, entry: Entry) -> Bytes:
    content = np.empty(entry.length, np.uint8)
    view, begin = content.data, 0
    while begin < entry.length:
        count = os.preadv(descriptor, [view[begin:]], entry.offset + begin)
        if count == 0:
            raise DamagedSegmentError(f"{segment.path}: an entry ends early")
        begin += count
    if xxh3_128_digest(content.data) != entry.checksum:
        raise DamagedSegmentError(f"{segment.path}: the entry at {entry.offset} is wrong")
    return content


def _open(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _segment(path: Path, table: bytes) -> Segment:
    _, _, num_entries, num_bytes, model, parent = _HEADER.unpack_from(table)
    entries, offset = list[Entry](), _table_end(num_entries)
    for key, checksum, length in _ROW.iter_unpack(table[_HEADER.size :]):
        entries.append(Entry(key, checksum, offset, length))
        offset += length
    if offset != num_bytes:
        raise DamagedSegmentError(f"{path}: its entries do not fill it")
    return Segment(path, model, parent, num_bytes, tuple(entries))


def _table_end(num_entries: int) -> int:
    return _CHECKSUM_BYTES + _HEADER.size + _ROW.size * num_entries


def _write_all(descriptor: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]

"""The manifest of a tier: which segments it has, when each was last used, and of which models they are.

One file: the checksum of what follows, in hexadecimal, a line's end, and JSON. It is written last, to a temporary file
that is renamed: a reader finds the old one or the new one. Times are ticks of the tier's own clock, which no change of
the system's moves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_hexdigest

from mlx_agent_llm.errors import KVTierError

FORMAT = 1
MANIFEST_NAME = "manifest"
TEMPORARY_NAME = "manifest.tmp"


@dataclass(frozen=True)
class Manifest:
    """last_used: by the names of segments; models: descriptions by fingerprints in hexadecimal."""

    last_used: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """What the folder's manifest says; None where there is none or it is damaged.

    KVTierError for one that is whole and of a format that is not known here.
    """
    try:
        checksum, _, body = (folder / MANIFEST_NAME).read_bytes().partition(b"\n")
        if checksum != xxh3_128_hexdigest(body).encode():
            return None
        values: dict[str, Any] = json.loads(body)
        if values["format"] != FORMAT:
            raise KVTierError(
                f"{folder} is a tier of format {values['format']}, and this version reads format {FORMAT} only"
            )
        return Manifest(values["last_used"], values["models"])
    except (OSError, ValueError, KeyError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the last one; an OSError leaves the last one as it was."""
    values = {"format": FORMAT, "models": dict(manifest.models), "last_used": dict(manifest.last_used)}
    body = json.dumps(values).encode()
    temporary = folder / TEMPORARY_NAME
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(xxh3_128_hexdigest(body).encode() + b"\n" + body)
    temporary.replace(folder / MANIFEST_NAME)

"""The folder of a tier: made for its owner alone, refused where others could put KV into it, locked by one writer."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from mlx_agent_llm.errors import KVTierError

LOCK_NAME = "lock"
_SEGMENT_NAME = re.compile(r"seg-[0-9a-f]{32}\.kv")
_TEMPORARY_NAME = re.compile(r"seg-[0-9a-f]{32}\.kv\.tmp")


class TierFolder:
    """A folder with segments; files in it that are none are left alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check()
        except OSError as error:
            raise KVTierError(f"kv_tier={str(path)!r} cannot be used: {error.strerror or error}") from error

    def lock(self) -> bool:
        """Whether this is the one who writes, from now on until close or the process's end."""
        if self._lock is None:
            try:
                descriptor = os.open(
                    self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            except OSError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def is_locked(self) -> bool:
        """Whether the folder at the path is the one that lock was for; an OSError where there is none any more."""
        return self._lock is not None and os.path.samestat(os.fstat(self._lock), os.stat(self.path / LOCK_NAME))

    def unlock(self) -> None:
        """Let another one write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def new_segment(self) -> Path:
        """Where another segment may lie."""
        return self.path / f"seg-{os.urandom(16).hex()}.kv"

    def segments(self) -> list[Path]:
        """All that are there; an OSError where the folder is gone."""
        return sorted(each for each in self.path.iterdir() if _SEGMENT_NAME.fullmatch(each.name))

    def temporaries(self) -> list[Path]:
        """What a writer left that was ended while it wrote."""
        return sorted(each for each in self.path.iterdir() if _TEMPORARY_NAME.fullmatch(each.name))

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def _check(self) -> None:
        found = self.path.stat()
        if not self.path.is_dir():
            raise KVTierError(f"kv_tier={str(self.path)!r} must be a folder")
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise KVTierError(f"kv_tier={str(self.path)!r} must be a folder that nobody else owns or may write to")
        if not os.access(self.path, os.R_OK | os.X_OK):
            raise KVTierError(f"kv_tier={str(self.path)!r} must be a folder that can be read")
        if not os.access(self.path, os.W_OK):
            raise KVTierError(f"kv_tier={str(self.path)!r} must be a folder that can be written to")

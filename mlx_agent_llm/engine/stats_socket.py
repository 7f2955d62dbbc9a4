"""StatsSocket: an engine's stats for other processes of its user, where MLX_AGENT_STATS_DIR names a folder for it."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import count
from json import JSONDecodeError
from pathlib import Path

from mlx_agent_llm.closing import Closing
from mlx_agent_llm.process.owner import OwnerProcess
from mlx_agent_llm.view.snapshot import Snapshot

VARIABLE = "MLX_AGENT_STATS_DIR"
_SUFFIX = ".sock"
_SECONDS_TO_ANSWER = 2.0
_numbers = count()  # of the engines of this process


class StatsSocket(Closing):
    """A Unix socket that answers each connection with a Snapshot as JSON, for nobody but its user."""

    def __init__(self, folder: Path, read: Callable[[], Snapshot]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{os.getpid()}-{next(_numbers)}{_SUFFIX}"

        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(json.dumps(asdict(read())).encode())

        try:
            self._server = socketserver.UnixStreamServer(str(self._path), Answer)
        except OSError as error:
            raise OSError(f"{VARIABLE}={str(folder)!r} cannot hold an engine's socket: {error}") from error
        self._path.chmod(0o600)
        self._owner = OwnerProcess()
        threading.Thread(target=self._server.serve_forever, name="mlx-agent-stats", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more; in a forked process there is no thread that does, and nothing to end."""
        if not self._owner.is_current:
            return
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def open_if_asked_for(read: Callable[[], Snapshot]) -> AbstractContextManager[object]:
    """The socket in the folder of the variable, or nothing where it is not set."""
    folder = os.environ.get(VARIABLE)
    return StatsSocket(Path(folder), read) if folder else nullcontext()


def read_folder(folder: Path) -> list[Snapshot]:
    """What the engines say that have a socket there; those of processes that died are passed over."""
    answers = (_read(path) for path in sorted(folder.glob(f"*{_SUFFIX}")))
    return [answer for answer in answers if answer is not None]


def _read(path: Path) -> Snapshot | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS_TO_ANSWER)
        try:
            connection.connect(str(path))
            with connection.makefile("rb") as stream:
                return Snapshot(**json.load(stream) | {"engine": path.stem})
        except (ConnectionError, FileNotFoundError, JSONDecodeError):  # it died long ago, or just now
            return None

"""A hub of one model on this machine, whose connections break where a test says so."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = "owner/model"
COMMIT = "0123456789012345678901234567890123456789"


class FakeHub(ThreadingHTTPServer):
    """Serves `files`; asked: the downloads, as (file, first byte). breaks: files that end after their half, once.

    refuses: files that are forbidden as long as they are in there.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.asked: list[tuple[str, int]] = []
        self.breaks: set[str] = set()
        self.refuses: set[str] = set()

    @property
    def url(self) -> str:
        """Where it is, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub(files: Mapping[str, bytes]) -> Iterator[FakeHub]:
    """A hub for as long as a test runs."""
    with FakeHub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer_file(has_body=False)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/resolve/" in path:
            self._answer_file(has_body=True)
        elif "/tree/" in path:
            self._answer_json(
                [
                    {"type": "file", "path": name, "oid": _hash(body), "size": len(body)}
                    for name, body in self.server.files.items()
                ]
            )
        else:
            self._answer_json(
                {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.server.files]}
            )

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the tests look at what was asked."""

    def _answer_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_file(self, *, has_body: bool) -> None:
        name = self.path.rpartition("/")[2]
        body = self.server.files[name]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if has_body:
            self.server.asked.append((name, first))
        is_refused = has_body and name in self.server.refuses
        self.send_response(403 if is_refused else 206 if first else 200)
        self.send_header("ETag", f'"{_hash(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0" if is_refused else str(len(body) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if has_body and not is_refused:
            is_broken = name in self.server.breaks
            self.server.breaks.discard(name)
            self.wfile.write(body[first : len(body) // 2 if is_broken else None])
            self.close_connection = is_broken


def _hash(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()

"""The routes of the chat page's files, which are read once and named here: no path of a request is opened."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_KINDS = {
    "/": ("chat.html", "text/html"),
    "/page/chat.css": ("chat.css", "text/css"),
    "/page/chat.js": ("chat.js", "text/javascript"),
    "/page/engine.js": ("engine.js", "text/javascript"),
    "/page/markdown.js": ("markdown.js", "text/javascript"),
    "/page/wire.js": ("wire.js", "text/javascript"),
}
PATHS = frozenset(_KINDS)
"""Where the files are; they hold nothing that a key protects."""
_FILES = {path: files(__package__).joinpath(name).read_bytes() for path, (name, _) in _KINDS.items()}
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def show_page(request: Request) -> Response:
    """One of the files."""
    path = request.url.path
    return Response(_FILES[path], headers=_HEADERS, media_type=_KINDS[path][1])

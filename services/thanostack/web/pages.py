"""Routes for the query page, added to an application that already has the query API.

    /   /graph     the page; its state is in the URL, under upstream's parameter names
    /static/...    its files

Files are read once. Browsers keep them and ask whether they changed (`ETag`), so an upgrade shows
at once. The page may load and ask nothing but its own origin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is served."""

    body: bytes
    content_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """Return the file, or that the browser's copy is still good."""
        headers = {**_HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers={**headers, "Content-Type": self.content_type})


def static_files() -> dict[str, StaticFile]:
    """Return the page's files by name."""
    return {path.name: _read(path) for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return StaticFile(body, _TYPES[path.suffix], etag)


def mount_page(app: FastAPI, prefix: str = "") -> None:
    """Add the page to an application.

    Args:
        app: has the query API under the same prefix.
        prefix: path before all routes, without a slash at its end.
    """
    router = APIRouter(prefix=prefix, include_in_schema=False)
    files = static_files()
    page = _route(files.pop("index.html"))
    router.add_api_route("/", page, methods=["GET", "HEAD"])
    router.add_api_route("/graph", page, methods=["GET", "HEAD"])
    for name, file in files.items():
        router.add_api_route(f"/static/{name}", _route(file), methods=["GET", "HEAD"])
    app.include_router(router)
    if prefix:
        app.add_api_route("/", _redirect(f"{prefix}/graph"), include_in_schema=False)
        app.add_api_route(prefix, _redirect(f"{prefix}/graph"), include_in_schema=False)


def _route(file: StaticFile) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return file.answer(request)

    return serve


def _redirect(target: str) -> Callable[[], Awaitable[Response]]:
    async def redirect() -> Response:
        return RedirectResponse(target)

    return redirect

"""The live page at `/` and its static files."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from feed.http.conditional import answer
from feed.http.methods import Route

_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


def headers_of(policy: str) -> dict[str, str]:
    """Return the headers of a page and its files, with this Content-Security-Policy.

    Browsers ask again each time, with the ETag, so that an upgrade shows at once.
    """
    return {
        "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }  # fmt: skip


_HEADERS = headers_of(_POLICY)


class Files(StaticFiles):
    """Static files that are all answered with the same headers."""

    def __init__(self, headers: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, or 304, with the headers; raises HTTPException for 404 and 405."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD, OPTIONS"})
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def install(app: FastAPI) -> None:
    """Serve the page at `/` and its files below `/static`."""
    folder = Path(str(resources.files("feed.http") / "static"))

    router = APIRouter(route_class=Route)

    whole = (folder / "index.html").read_bytes()

    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        response = answer(request, whole, "text/html; charset=utf-8")
        response.headers.update(_HEADERS)
        return response

    app.include_router(router)
    app.mount("/static", Files(_HEADERS, directory=folder), name="static")

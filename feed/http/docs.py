"""The API reference at `/docs`: Swagger UI, from files that are installed with the service and not from another site."""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response

from feed.http.methods import Route
from feed.http.page import Files, headers_of

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI needs no inline script, no inline style and no `eval`."""
_HEADERS = headers_of(_POLICY)


def install(app: FastAPI) -> None:
    """Serve the reference at `/docs` and its files below `/docs/files`; `app` has none of its own (`docs_url=None`)."""
    folder = Path(str(resources.files("feed.http") / "swagger"))

    router = APIRouter(route_class=Route)

    @router.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return FileResponse(folder / "index.html", headers=_HEADERS)

    app.include_router(router)
    # fastapi-offline is installed for these files alone: the script and the stylesheet of Swagger UI.
    files = Files(_HEADERS, directory=folder, packages=[("fastapi_offline", "static")])
    app.mount("/docs/files", files, name="docs files")

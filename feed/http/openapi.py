"""What FastAPI cannot describe in the OpenAPI document: the stream, and the credentials, which the gate reads itself."""

from typing import Any

from fastapi import FastAPI

from feed.access.sessions import COOKIE
from feed.http.stream import PATH
from feed.http.stream_openapi import stream_operation

_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`feed key create`) or a token (JWT). Not needed where reading, or writing, is open.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Of `POST /v1/session`: browsers send it by themselves.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Of `POST /v1/tickets`: opens one stream.",
    },
}


def install(app: FastAPI) -> None:
    """Describe in the OpenAPI document of `app` the stream and the credentials: one is enough, none where access is open."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema["paths"][PATH] = {"get": stream_operation()}
            schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    if path.startswith("/v1/") or path == "/metrics":
                        operation["security"] = [{}, {"bearer": []}, {"session": []}]
                    if path == PATH:
                        operation["security"].append({"ticket": []})
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]

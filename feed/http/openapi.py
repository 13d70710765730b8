"""The credentials in the OpenAPI document. The gate reads them itself, so FastAPI cannot describe them."""

from typing import Any

from fastapi import FastAPI

from feed.access.sessions import COOKIE

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
    """Describe the credentials in the OpenAPI document of `app`: one of them is enough, and none where access is open."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    if path.startswith("/v1/") or path == "/metrics":
                        operation["security"] = [{}, {"bearer": []}, {"session": []}]
                    if path == "/v1/jobs/stream":
                        operation["security"].append({"ticket": []})
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]

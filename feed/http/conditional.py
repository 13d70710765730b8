"""Answers that a client may keep, and ask about again with their ETag (RFC 9110, 13.1.2)."""

from hashlib import blake2b

from fastapi import Request
from starlette.responses import Response

_HEADERS = {"Cache-Control": "no-cache"}
"""Who keeps an answer asks each time whether it is still the same; so a cache that many share gives nobody another's."""


def answer(request: Request, body: bytes, media_type: str, status: int = 200) -> Response:
    """Return the response with this body and its ETag, or 304 for a client that has the same body already.

    The ETag is a weak one, since the same body may be sent compressed or not.
    """
    etag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**_HEADERS, "ETag": etag}
    if status == 200 and _knows(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type)


def _knows(known: str | None, etag: str) -> bool:
    """Return whether `If-None-Match` names an ETag, by weak comparison (RFC 9110, 8.8.3.2)."""
    if known is None:
        return False
    opaque = etag.removeprefix("W/")
    return known.strip() == "*" or any(one.strip().removeprefix("W/") == opaque for one in known.split(","))

"""Writes from other sites' pages: browsers send them without asking, so they are refused.

CORS decides who may read an answer; a form, or a `fetch` that needs no preflight, writes all the same. Programs send neither
header and are not concerned.
"""

from urllib.parse import urlsplit

from fastapi import HTTPException, Request


def same_site(request: Request) -> None:
    """A dependency of routes that write: raises 403 for a browser's request on behalf of another site's page."""
    origin = request.headers.get("origin")
    if origin is None:
        foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    else:
        foreign = urlsplit(origin).netloc != request.headers.get("host")
    if foreign:
        raise HTTPException(403, "another site's page may not write here")

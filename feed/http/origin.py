"""Requests of other sites' pages that change something: browsers send them without asking, so they are refused.

CORS decides who may read an answer; a form, or a `fetch` that needs no preflight, writes all the same. Programs send neither
header and are not concerned.
"""

from urllib.parse import urlsplit

from fastapi import Request

from feed.errors import Forbidden


def same_site(request: Request) -> None:
    """A dependency of routes that write: raises Forbidden for a browser's request on behalf of another site's page."""
    if _foreign(request):
        raise Forbidden("pages of other sites may not change anything here")


class Origins:
    """The sites whose pages may sign in here: this one, and those that are named (`*` names nobody)."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = frozenset(named) - {"*"}

    def known(self, request: Request) -> None:
        """A dependency of routes about credentials: raises Forbidden for a page of a site that is not named."""
        if _foreign(request) and request.headers.get("origin") not in self._named:
            raise Forbidden("pages of this site may not sign in here, unless FEED_CORS_ORIGINS names its origin")


def _foreign(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return urlsplit(origin).netloc != request.headers.get("host")

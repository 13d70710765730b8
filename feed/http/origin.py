"""Protection against cross-site request forgery: pages of other sites may not change anything.

CORS only decides who may read an answer; a form, or a `fetch` that needs no preflight, is sent all the same. Programs
that are no browsers send neither `Origin` nor `Sec-Fetch-Site`, and are not affected.
"""

from urllib.parse import urlsplit

from fastapi import Request

from feed.errors import Forbidden


def same_site(request: Request) -> None:
    """Raise Forbidden for a browser's request on behalf of another site's page; a dependency of routes that write."""
    if _foreign(request):
        raise Forbidden("pages of other sites may not change anything here")


class Origins:
    """The origins whose pages may sign in: the service's own, and those that are named. `*` names none."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = frozenset(named) - {"*"}

    def known(self, request: Request) -> None:
        """Raise Forbidden for a page of any other origin; a dependency of the routes of sessions and tickets."""
        if _foreign(request) and request.headers.get("origin") not in self._named:
            raise Forbidden("pages of this site may not sign in here, unless FEED_CORS_ORIGINS names its origin")


def _foreign(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return urlsplit(origin).netloc != request.headers.get("host")

"""What an adapter fetches with in one run: it knows what the last run was told, and notices what this one is told."""

import asyncio
import hashlib

from feed import __version__
from feed.ingest.adapter import Answer, NotModified
from feed.ingest.fetcher import Ask, Fetcher
from feed.model.source_run import Validators


class RunFetch:
    """Implements `Fetch` for one run.

    What has not changed can only be told of lists that come in one answer: of several pages, one may be as it was and
    another not.
    """

    def __init__(self, fetcher: Fetcher, gap: float, known: Validators | None) -> None:
        self._fetcher = fetcher
        self._gap = gap
        self._known = known if known is not None and known.version == __version__ else None
        self._seen: Validators | None = None
        self._requests = 0

    @property
    def validators(self) -> Validators | None:
        """Return what may be compared with the next list; None where that cannot be told by one answer."""
        return self._seen if self._requests == 1 else None

    async def __call__(self, url: str, *, accept: str = "application/json", seconds: float | None = None) -> Answer:
        """Fetch as `Fetch` says; raises NotModified also where the answer is byte for byte that of the last run."""
        self._requests += 1
        known = self._known if self._requests == 1 and self._known is not None and self._known.url == url else None
        answer = await self._fetcher.get(url, Ask(accept, seconds, self._gap, known))
        digest = await asyncio.to_thread(lambda: hashlib.sha256(answer.body).digest())
        if known is not None and known.digest == digest:
            raise NotModified
        headers = answer.headers
        self._seen = Validators(url, headers.get("etag"), headers.get("last-modified"), digest, __version__)
        return answer

"""robots.txt (RFC 9309): whether a page may be fetched, remembered for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from protego import Protego

from feed.ingest.adapter import Answer, FetchError, NotModified

AGENT: Final = "feed"
"""The name by which a robots.txt addresses us."""
_LARGEST = 512 * 1024
"""Bytes of a robots.txt that are read (section 2.5)."""
_MANY = 1_000
"""Hosts whose rules are remembered."""
_LONGEST_DELAY = 60.0
"""Seconds of `Crawl-delay` that are kept to at the most."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one host allows. `read` is None where it has no rules."""

    read: Protego | None
    until: float
    """The loop's time up to which they are believed."""

    def allow(self, url: str) -> bool:
        """Return whether a page may be fetched."""
        return self.read is None or bool(self.read.can_fetch(url, AGENT))

    @property
    def delay(self) -> float:
        """Return the seconds between two requests that the host asks for."""
        asked = None if self.read is None else self.read.crawl_delay(AGENT)
        return min(float(asked or 0.0), _LONGEST_DELAY)


class Robots:
    """The rules of hosts. `get` fetches a URL; `age` is how many seconds rules are believed."""

    def __init__(self, get: Callable[[str], Awaitable[Answer]], age: float) -> None:
        self._get = get
        self._age = age
        self._rules: OrderedDict[str, Rules] = OrderedDict()

    async def rules(self, origin: str) -> Rules:
        """Return the rules of an origin such as `https://acme.example`.

        Raises FetchError where they cannot be had just now: nothing may be fetched then (section 2.3.1.4).
        """
        now = asyncio.get_running_loop().time()
        known = self._rules.get(origin)
        if known is not None and known.until > now:
            self._rules.move_to_end(origin)
            return known
        rules = Rules(await self._fetch(origin), now + self._age)
        self._rules[origin] = rules
        self._rules.move_to_end(origin)
        if len(self._rules) > _MANY:
            self._rules.popitem(last=False)
        return rules

    async def _fetch(self, origin: str) -> Protego | None:
        try:
            answer = await self._get(f"{origin}/robots.txt")
        except FetchError as error:
            if error.kind in ("not_found", "gone", "refused"):  # there are none (section 2.3.1.3)
                return None
            if error.kind in ("private_address", "too_large"):
                raise
            raise FetchError(f"{origin}/robots.txt cannot be read, so no page is: {error}", "robots") from error
        except NotModified:
            return None
        text = answer.body[:_LARGEST].decode("utf-8", "replace")
        return await asyncio.to_thread(Protego.parse, text)

"""The open streams of a process: how many there may be, and which of them must end."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from feed.access.caller import Caller
from feed.access.grant import Grant
from feed.access.revocations import Revocation
from feed.fanout.ending import Ended, Goodbye
from feed.fanout.hub import Hub
from feed.fanout.stream import Stream
from feed.settings.fanout import StreamSettings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)

_QUIET = 1.0
"""Seconds between two lines about streams that were refused."""
_ON_THE_WAY = 10.0
"""Seconds for which `end_where` also ends new streams: their requests may have been admitted before it was called."""


class Streams:
    """Every open stream of the process, in the order in which they opened."""

    def __init__(self, hub: Hub, settings: StreamSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._streams: dict[str, Stream] = {}
        self._of_address: Counter[str] = Counter()
        self._of_grant: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()  # streams since the process began, by protocol
        self.ended: Counter[str] = Counter()  # streams since the process began, by reason
        self._ending: list[tuple[float, Callable[[Stream], bool], Goodbye]] = []
        self._refused: Counter[str] = Counter()  # by reason, since the last line that said so
        self._last_refused = Caller()
        self._quiet = False  # whether there was such a line less than `_QUIET` seconds ago
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    @contextmanager
    def holding(self, stream: Stream) -> Iterator[None]:
        """Count `stream` as open while the context lasts. A stream that may not be opened now is told to end at once."""
        refused = self._ended(stream) or self.refusal_of(stream.caller)
        if refused is not None:
            stream.end(refused)
        if stream.leaving:
            # It only says goodbye: it counts towards no limit.
            self.opened[stream.caller.family] += 1
            try:
                yield
            finally:
                self._note_refused(stream)
            return
        stream.due = due_after(self._settings.max_age, asyncio.get_running_loop().time())
        caller = stream.caller
        self._streams[stream.id] = stream
        self._of_address[caller.bucket] += 1
        self._of_grant[caller.grant.name] += 1
        self.opened[caller.family] += 1
        self.empty.clear()
        failed: Ended | None = None
        try:
            yield
        except OSError:
            failed = Ended.CLIENT
            raise
        except Exception:
            failed = Ended.ERROR
            raise
        finally:
            del self._streams[stream.id]
            _decrease(self._of_address, caller.bucket)
            _decrease(self._of_grant, caller.grant.name)
            if not self._streams:
                self.empty.set()
            self._note(stream, failed or stream.ended)

    def _note_refused(self, stream: Stream) -> None:
        """Count a stream that was refused; however many there are, one line a second says so."""
        reason = stream.ended.value
        self.ended[reason] += 1
        if not self._settings.log:
            return
        self._refused[reason] += 1
        self._last_refused = stream.caller
        if not self._quiet:
            self._log_refused()

    def _log_refused(self) -> None:
        """Log what was refused since the last such line, then be quiet for a while."""
        self._quiet = bool(self._refused)
        if not self._quiet:
            return
        refused, self._refused = self._refused, Counter()
        caller = self._last_refused
        log.info(
            "streams refused", **refused, last_key=caller.grant.name, last_address=caller.address,
            last_protocol=caller.protocol,
        )  # fmt: skip
        asyncio.get_running_loop().call_later(_QUIET, self._log_refused)

    def _note(self, stream: Stream, reason: Goodbye | Ended) -> None:
        """Count the end of a stream, and log what the stream was in one line."""
        self.ended[reason.value] += 1
        if self._settings.log:
            caller = stream.caller
            log.info(
                "stream ended", id=stream.id, key=caller.grant.name, address=caller.address, protocol=caller.protocol,
                filter=stream.filters, seconds=round(time.time() - stream.opened_at, 3), events=stream.events,
                bytes=stream.bytes, replayed=stream.replayed, reason=reason.value,
            )  # fmt: skip

    def _ended(self, stream: Stream) -> Goodbye | None:
        """Return the reason why a stream that was admitted a moment ago was to end meanwhile, or None."""
        if not self._ending:
            return None
        now = asyncio.get_running_loop().time()
        return next((reason for until, ends, reason in self._ending if until > now and ends(stream)), None)

    def refusal(self) -> Goodbye | None:
        """Return why no stream can be opened now, or None if streams can be."""
        if self.draining:
            return Goodbye.DRAIN
        if len(self) >= self._settings.max_streams:
            return Goodbye.FULL
        return None if self._hub.ready else Goodbye.UNAVAILABLE

    def refusal_of(self, caller: Caller) -> Goodbye | None:
        """Return why one caller can open no stream now, or None if it can."""
        most = caller.grant.max_streams
        if (caller.bucket and self._of_address[caller.bucket] >= self._settings.per_address) or (
            most is not None and self._of_grant[caller.grant.name] >= most
        ):
            return self.refusal() or Goodbye.FULL
        return self.refusal()

    def end_where(self, ends: Callable[[Stream], bool], reason: Goodbye) -> int:
        """End the open streams for which `ends` is true, and those that open soon. Returns how many of them are open."""
        now = asyncio.get_running_loop().time()
        self._ending = [one for one in self._ending if one[0] > now]
        self._ending.append((now + _ON_THE_WAY, ends, reason))
        ending = [stream for stream in self._streams.values() if ends(stream)]
        for stream in ending:
            stream.end(reason)
        return len(ending)

    def end_revoked(self, revocation: Revocation, concerns: Callable[[Revocation, Grant], bool]) -> None:
        """End the streams that a revocation concerns; `concerns` says whether it ends a grant."""
        if revocation.kind == "stream":
            self.end_where(lambda stream: stream.id == revocation.subject, Goodbye.KICKED)
        else:
            self.end_where(lambda stream: concerns(revocation, stream.caller.grant), Goodbye.REVOKED)

    async def watch(self) -> None:
        """Until cancelled, cut off clients that take no bytes and end streams that are too old or whose grant has expired.

        One timer serves all streams.
        """
        await supervised("stream watch", self._watch, Backoff(1.0))

    async def _watch(self) -> None:
        interval = min(1.0, self._settings.send_timeout / 4)
        while True:
            await asyncio.sleep(interval)
            self._look()

    def _look(self) -> None:
        """Look at each stream once."""
        now, unix = asyncio.get_running_loop().time(), time.time()
        stalled = now - self._settings.send_timeout
        for stream in self:
            if stream.sending_since is not None and stream.sending_since < stalled:
                stream.cut()
            expires_at = stream.caller.grant.expires_at
            if expires_at is not None and expires_at <= unix:
                stream.end(Goodbye.EXPIRED)
            elif stream.due is not None and stream.due <= now:
                stream.end(Goodbye.MAX_AGE)


def due_after(max_age: float | None, now: float) -> float | None:
    """Return the loop time at which a stream that opens `now` is to end: `max_age` later, give or take a tenth."""
    return None if max_age is None else now + max_age * random.uniform(0.9, 1.1)


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]

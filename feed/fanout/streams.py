"""The open streams: who is in, who may still come in, and whose time has come."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from feed.access.caller import Caller
from feed.fanout.ending import Ended, Farewell
from feed.fanout.hub import Hub
from feed.fanout.stream import Stream
from feed.settings.settings import Settings

log = structlog.get_logger(__name__)

_QUIET = 1.0
"""Seconds between two lines about streams that were refused."""
_ON_THE_WAY = 10.0
"""Seconds for which an end also concerns streams that come after it: they may have been let in before."""


class Streams:
    """Every open stream of the process, in the order in which they opened."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._settings = settings
        self._streams: dict[str, Stream] = {}
        self._of_address: Counter[str] = Counter()
        self._of_grant: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()  # ever, by protocol
        self.ended: Counter[str] = Counter()  # ever, by reason
        self._refused: Counter[str] = Counter()  # by reason, since the last line that said so
        self._last_refused = Caller()
        self._quiet = False  # whether there was such a line less than `_QUIET` seconds ago
        self._ending: list[tuple[float, Callable[[Stream], bool], Farewell]] = []
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    @contextmanager
    def holding(self, stream: Stream) -> Iterator[None]:
        """Count `stream` as open; one that cannot be had now is told so at once."""
        refused = self._ended(stream) or self._refusal(stream)
        if refused is not None:
            stream.end(refused)
        if stream.leaving:
            # It is told so and gone: it takes nobody's place, and a client that does not listen is not waited for.
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
        if not self._settings.log_streams:
            return
        self._refused[reason] += 1
        self._last_refused = stream.caller
        if not self._quiet:
            self._say_refused()

    def _say_refused(self) -> None:
        """Say what was refused since the last line; then be quiet for a while."""
        self._quiet = bool(self._refused)
        if not self._quiet:
            return
        refused, self._refused = self._refused, Counter()
        caller = self._last_refused
        log.info(
            "streams refused", **refused, last_key=caller.grant.name, last_address=caller.address,
            last_protocol=caller.protocol,
        )  # fmt: skip
        asyncio.get_running_loop().call_later(_QUIET, self._say_refused)

    def _note(self, stream: Stream, reason: Farewell | Ended) -> None:
        """Count an end, and say in one line what the stream was."""
        self.ended[reason.value] += 1
        if self._settings.log_streams:
            caller = stream.caller
            log.info(
                "stream ended", id=stream.id, key=caller.grant.name, address=caller.address, protocol=caller.protocol,
                filter=stream.filter_text, seconds=round(time.time() - stream.opened_at, 3), events=stream.events,
                bytes=stream.bytes, replayed=stream.replayed, reason=reason.value,
            )  # fmt: skip

    def _ended(self, stream: Stream) -> Farewell | None:
        """Whether it was to end between being let in and getting here."""
        if not self._ending:
            return None
        now = asyncio.get_running_loop().time()
        return next((reason for until, ends, reason in self._ending if until > now and ends(stream)), None)

    def refusal(self) -> Farewell | None:
        """Why nobody can come in now; None where somebody can."""
        if self.draining:
            return Farewell.DRAIN
        if len(self) >= self._settings.max_streams:
            return Farewell.FULL
        return None if self._hub.ready else Farewell.UNAVAILABLE

    def _refusal(self, stream: Stream) -> Farewell | None:
        caller = stream.caller
        most = caller.grant.max_streams
        if (caller.bucket and self._of_address[caller.bucket] >= self._settings.streams_per_address) or (
            most is not None and self._of_grant[caller.grant.name] >= most
        ):
            return self.refusal() or Farewell.FULL
        return self.refusal()

    def end_where(self, ends: Callable[[Stream], bool], reason: Farewell) -> int:
        """Say goodbye to the streams for which `ends` is true, and to those that are on their way in; returns how many."""
        now = asyncio.get_running_loop().time()
        self._ending = [one for one in self._ending if one[0] > now]
        self._ending.append((now + _ON_THE_WAY, ends, reason))
        ending = [stream for stream in self._streams.values() if ends(stream)]
        for stream in ending:
            stream.end(reason)
        return len(ending)

    async def watch(self) -> None:
        """For ever: cut off clients that take nothing, end streams that are old or whose grant is. One timer for all."""
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
                stream.end(Farewell.EXPIRED)
            elif stream.due is not None and stream.due <= now:
                stream.end(Farewell.MAX_AGE)


def due_after(max_age: float | None, now: float) -> float | None:
    """When a stream that opens `now` is to end: a tenth sooner or later than `max_age`."""
    return None if max_age is None else now + max_age * random.uniform(0.9, 1.1)


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]

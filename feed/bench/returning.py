"""Readers that come back: a stream that the server ends is opened again with its last id, as a browser's EventSource does.

`python -m feed.bench.returning` is told what `feed.bench.reader` is told.
"""

import dataclasses
import heapq
import re
import time

from feed.bench.connection import Connection, Stream
from feed.bench.framing import Ended
from feed.bench.reader import Reader, main
from feed.bench.spec import Spec

_GOODBYE = re.compile(rb"retry: (\d+)\nevent: goodbye\n")
_AGAIN = 1.0
"""Seconds until the next attempt after one that failed, where the server has not asked for another time."""


class Returning(Reader):
    """Subscribers that count each event once by its number, and come back to `return_port` when a stream has ended.

    Streams that share a connection come back together: when the last of them has ended, after the longest time that one of
    them was asked to wait.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._take = self._once
        self._back = dataclasses.replace(
            spec, port=spec.return_port, headers=(*spec.headers, ("last-event-id", "{cursor}"))
        )
        self._due: list[tuple[float, int, list[Stream]]] = []  # a heap: when, the first stream's number, the streams
        self._known: set[int] = set()  # numbers of the streams that have been live

    def _round(self, longest: float) -> bool:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._connect(self._back, heapq.heappop(self._due)[2])
        return super()._round(min(longest, max(0.0, self._due[0][0] - now)) if self._due else longest)

    def _once(self, stream: Stream, text: bytes) -> None:
        """Count the events of `text` and keep its last id."""
        for match in self._stamped.finditer(text):
            self._is_new(stream, int(match[1]))
        at = text.rfind(b"\nid: ") + 1
        if at or text.startswith(b"id: "):
            stream.cursor = text[at + 4 : text.index(b"\n", at)].decode()
        if b"goodbye" in text and (told := _GOODBYE.search(text)):
            stream.retry = int(told[1]) / 1000

    def _became_live(self, stream: Stream, text: bytes) -> None:
        super()._became_live(stream, text)
        if stream.number in self._known:
            self.seen.lived.append(time.monotonic())
        self._known.add(stream.number)

    def _is_over(self, connection: Connection) -> bool:
        return connection.framing.over >= len(connection.streams)

    def _greet(self, connection: Connection) -> None:
        try:
            super()._greet(connection)
        except (OSError, Ended):
            if not self._returns(connection):
                raise
            self._poll.unregister(connection.fd)
            del self._pending[connection.fd]
            connection.sock.close()
            self._later(connection, failed=True)

    def _drop(self, connection: Connection, why: Ended) -> None:
        if not self._returns(connection):
            super()._drop(connection, why)
            return
        self._poll.unregister(connection.fd)
        del self._open[connection.fd]
        connection.sock.close()
        self._said = str(why)
        self._later(connection, failed=not connection.framing.over)

    def _returns(self, connection: Connection) -> bool:
        """Return whether all streams of a connection have been live before: one that never was is an error."""
        return all(stream.number in self._known for stream in connection.streams)

    def _later(self, connection: Connection, *, failed: bool) -> None:
        streams = list(connection.streams)
        self.seen.refused += failed
        for stream in streams:
            self.seen.live -= stream.live
            stream.live = False
            stream.rest = b""
        wait = max(stream.retry for stream in streams) or _AGAIN
        heapq.heappush(self._due, (time.monotonic() + wait, streams[0].number, streams))


if __name__ == "__main__":
    main(Returning)

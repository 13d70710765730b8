"""Readers for measurements: many subscribers in one process, cheap enough not to be what is measured.

`python -m feed.bench.reader` reads a `Spec` from the first line of its stdin, prints `up`, and then does what the lines
that follow say: `open` all streams (it prints `live` once they are), `reach N` deliveries (`reached`), `report N` (what was
seen, as JSON, where each subscriber should have had N events). It ends with its stdin. What it cannot do it answers with
`error` and why.
"""

import os
import re
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from resource import RLIMIT_NOFILE, RUSAGE_SELF, getrlimit, getrusage, setrlimit
from typing import Any

import orjson

from feed.bench.connection import Connection, Stream
from feed.bench.framing import Ended
from feed.bench.spec import Seen, Spec

_AT_ONCE = 16_384
"""The most sockets that one call of epoll returns."""
_NAP = 0.002
"""Seconds between two looks while things arrive: what came meanwhile is one read, and one wake-up, for all."""
_BURST = 0.005
"""Seconds that readers who take times stay awake after an arrival, so that no wake-up is part of the next."""
_SYNCED = re.compile(rb'event: synced\ndata: \{"position":(\d+),"replayed":(\d+)\}')


class Reader:
    """All subscribers of a process, behind one epoll."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._poll = select.epoll()
        self._stdin = sys.stdin.fileno()
        self._poll.register(self._stdin, select.EPOLLIN | select.EPOLLHUP)
        cursors = spec.cursors or ("",) * spec.subscribers
        self._streams = [Stream(spec.first + number, cursors[number]) for number in range(spec.subscribers)]
        self._pending: dict[int, Connection] = {}
        self._open: dict[int, Connection] = {}
        self._live, self._marker, self._separator = (text.encode() for text in (spec.live, spec.marker, spec.separator))
        self._stamped = re.compile(re.escape(self._marker) + rb"(\d+)-(\d+)")
        self._by_event: dict[int, list[int]] = {}
        self._stamps: dict[int, int] = {}
        self._timing = spec.task == "time"
        self._take: Callable[[Stream, bytes], None] = self._time if self._timing else self._count
        self._now = 0.0
        self._said: str | None = None  # why a stream ended
        self._address: Any = None  # family and socket address, once they are known
        self._context: ssl.SSLContext | None = None
        if spec.tls:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["h2" if spec.http == "h2" else "http/1.1"])
        self.seen = Seen()

    def open(self) -> None:
        """Connect all and return when they are live; raises Ended or OSError where that cannot be."""
        spec = self._spec
        waiting = [self._streams[at : at + spec.streams] for at in range(0, spec.subscribers, spec.streams)][::-1]
        deadline = time.monotonic() + spec.patience
        asked = 0
        while self.seen.live < spec.subscribers:
            while waiting and asked - self.seen.live < spec.pending:
                asked += len(self._connect(spec, waiting.pop()).streams)
            if time.monotonic() > deadline:
                raise Ended(f"after {spec.patience:g} s {self.seen.live:,} of {spec.subscribers:,} streams are live")
            if self._round(0.05):
                raise Ended("nobody waits for the streams any more")
            if self.seen.ended:
                raise Ended(self._said)

    def read(self, deliveries: int | None = None) -> None:
        """Read until so many were seen (and no stream is left), or something is wanted on stdin."""
        while deliveries is None or (self.seen.deliveries < deliveries and self._open):
            if self._round(1.0):
                return

    def report(self, events: int) -> Seen:
        """Return what was seen, where each subscriber should have had `events`."""
        seen = self.seen
        seen.twice = sum(one.twice if self._timing else max(0, one.count - events) for one in self._streams)
        seen.missing = sum(max(0, events - one.count) for one in self._streams)
        seen.at = self._now
        usage = getrusage(RUSAGE_SELF)
        seen.cpu = usage.ru_utime + usage.ru_stime
        seen.times = {str(event): times for event, times in self._by_event.items()}
        seen.stamps = {str(event): stamp for event, stamp in self._stamps.items()}
        seen.error = self._said
        return seen

    def _connect(self, spec: Spec, streams: Sequence[Stream]) -> Connection:
        """Begin a connection for some streams."""
        if self._address is None:
            family, _, _, _, where = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)[0]
            self._address = (family, where)
        family, where = self._address
        one = Connection(spec, streams, self._context, (family, (where[0], spec.port, *where[2:])))
        self._pending[one.fd] = one
        self._poll.register(one.fd, select.EPOLLOUT)
        return one

    def _round(self, longest: float) -> bool:
        """Read the sockets that have something once; return whether stdin has something too."""
        wanted = False
        taken: list[tuple[Connection, bytes, float]] = []
        awake = self._timing and time.monotonic() - self._now < _BURST
        before = self.seen.deliveries
        for fd, _ in self._poll.poll(0 if awake else longest, _AT_ONCE):
            connection = self._open.get(fd)
            if connection is None:
                if fd == self._stdin:
                    wanted = True
                else:
                    self._greet(self._pending[fd])
                continue
            try:
                piece = connection.receive()
                if self._timing:
                    taken.append((connection, piece, connection.arrived or time.monotonic()))
                else:
                    self._read(connection, piece)
            except Ended as ended:
                self._drop(connection, ended)
        # Times are taken as everything comes off the sockets; only then is it looked at.
        for connection, piece, at in taken:
            self._now = at
            try:
                self._read(connection, piece)
            except Ended as ended:
                self._drop(connection, ended)
        if not self._timing and self.seen.deliveries != before:
            self._now = time.monotonic()
            if not wanted:
                time.sleep(_NAP)
        return wanted

    def _read(self, connection: Connection, piece: bytes) -> None:
        """Count or time the events in `piece`, frame by frame of the stream; raises Ended."""
        framing, streams, separator = connection.framing, connection.streams, self._separator
        for place, body in framing.bodies(piece):
            stream = streams[place]
            text = stream.rest + body if stream.rest else body
            if text.endswith(separator):
                stream.rest = b""
            else:
                cut = text.rfind(separator)
                if cut < 0:
                    stream.rest = text
                    continue
                cut += len(separator)
                stream.rest = text[cut:]
                text = text[:cut]
            self._take(stream, text)
            if not stream.live and self._live in text:
                self._became_live(stream, text)
        if framing.out:
            connection.flush()
        if framing.over and self._is_over(connection):
            raise Ended("the server ended a stream")

    def _is_over(self, _: Connection) -> bool:
        """Return whether a connection, of which the server has ended a stream, is to be given up."""
        return True

    def _count(self, stream: Stream, text: bytes) -> None:
        found = text.count(self._marker)
        if found:
            seen = self.seen
            stream.count += found
            seen.deliveries += found
            seen.pieces += 1
            seen.size += len(text)

    def _time(self, stream: Stream, text: bytes) -> None:
        at = round(self._now * 1_000_000)
        for match in self._stamped.finditer(text):
            event, stamp = int(match[1]), int(match[2])
            if not self._is_new(stream, event):
                continue
            self._stamps[event] = stamp
            self._by_event.setdefault(event, []).append(at - stamp)
        self.seen.pieces += 1

    def _is_new(self, stream: Stream, event: int) -> bool:
        """Count an event of a stream; returns False where the stream had it already."""
        if event >= len(stream.seen):
            stream.seen.extend(bytes(event + 1 - len(stream.seen)))
        if stream.seen[event]:
            stream.twice += 1
            return False
        stream.seen[event] = 1
        stream.count += 1
        self.seen.deliveries += 1
        return True

    def _became_live(self, stream: Stream, text: bytes) -> None:
        seen = self.seen
        stream.live = True
        seen.live += 1
        if self._spec.task != "replay":
            return
        seen.lived.append(time.monotonic())
        synced = _SYNCED.search(text)
        if synced is None:
            raise Ended("the server does not say how much it replayed")
        # Before this frame exactly what lies between the cursor and the head has come.
        behind = int(synced[1]) - int(stream.cursor.rpartition(".")[2])
        before = stream.count - text[synced.end() :].count(self._marker)
        seen.behind += behind
        seen.gaps += abs(behind - before)

    def _greet(self, connection: Connection) -> None:
        wait = connection.greet()
        if wait:
            self._poll.modify(connection.fd, wait)
            return
        self._open[connection.fd] = self._pending.pop(connection.fd)
        self._poll.modify(connection.fd, select.EPOLLIN)

    def _drop(self, connection: Connection, why: Ended) -> None:
        """Give up a connection; all of its streams count as ended."""
        self._poll.unregister(connection.fd)
        del self._open[connection.fd]
        connection.sock.close()
        self.seen.ended += len(connection.streams)
        self._said = str(why)


def _answer(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(kind: Callable[[Spec], Reader] = Reader) -> None:
    """Run a process of readers: its specification comes on stdin, what it has seen goes to stdout."""
    spec = Spec.loads(sys.stdin.readline())
    if spec.cores:
        os.sched_setaffinity(0, spec.cores)
    os.nice(spec.nice)
    most = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (most, most))
    reader = kind(spec)
    _answer("up")
    while line := sys.stdin.readline():
        word, _, number = line.strip().partition(" ")
        try:
            if word == "open":
                reader.open()
                _answer("live")
                reader.read()
            elif word == "reach":
                reader.read(int(number))
                _answer("reached")
                reader.read()
            else:
                _answer(orjson.dumps(asdict(reader.report(int(number)))).decode())
                reader.read()
        except (OSError, Ended) as error:
            said = (error.strerror if isinstance(error, OSError) else None) or str(error)
            _answer(f"error {said or type(error).__name__}")
            return


if __name__ == "__main__":
    main()

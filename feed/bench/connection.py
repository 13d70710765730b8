"""One connection of a reader: connecting, then in a TLS handshake, then open, never blocking."""

import os
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any

from feed.bench.framing import Chunked, Ended, Frames, Framing, Request
from feed.bench.spec import Spec

_PIECE = 64 * 1024
_PIECES = 64
"""Bytes taken off one socket before the next has its turn."""
_TIMESTAMPS = 35
"""SO_TIMESTAMPNS, and the type of what it adds to a message (asm-generic/socket.h); the module socket has no name for it."""
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)
_NUMBER = re.compile(r"\{n(?:([%/*])([1-9]\d*))?\}")


class Stream:
    """One subscriber; `cursor` is the position it begins after."""

    __slots__ = ("count", "cursor", "live", "number", "rest", "retry", "seen", "twice")

    def __init__(self, number: int, cursor: str = "") -> None:
        self.number = number
        self.cursor = cursor
        self.live = False
        self.count = 0  # events that came
        self.rest = b""  # the beginning of a frame
        self.seen = bytearray()  # by an event's number: whether it came
        self.twice = 0
        self.retry = 0.0  # seconds that the server asked it to wait before it comes back

    def request(self, spec: Spec) -> Request:
        """Return the path and the headers of its request."""

        def filled(text: str) -> str:
            return _NUMBER.sub(self._computed, text).replace("{cursor}", self.cursor)

        return filled(spec.path), tuple((name, filled(value)) for name, value in spec.headers)

    def _computed(self, found: re.Match[str]) -> str:
        """`{n}`, or `{n%10}`, `{n/10}`, `{n*10}`."""
        if found[1] is None:
            return str(self.number)
        by = int(found[2])
        return str({"%": self.number % by, "/": self.number // by, "*": self.number * by}[found[1]])


class Connection:
    """A socket with its streams."""

    def __init__(self, spec: Spec, streams: Sequence[Stream], context: ssl.SSLContext | None, address: Any) -> None:
        requests = [one.request(spec) for one in streams]
        self.framing: Framing = Chunked(spec, requests) if spec.http == "http/1.1" else Frames(spec, requests)
        self.streams = streams
        self._context = context
        self._host = spec.host
        self._tls: ssl.SSLSocket | None = None
        family, where = address
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.arrived = 0.0  # when what was received last reached the socket, on the monotonic clock; 0: not known
        self._timed = spec.kernel_times and context is None
        if self._timed:
            self.sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self.sock.connect_ex(where)

    def greet(self) -> int:
        """Go on connecting; returns the epoll event to wait for, 0 once the requests are out. Raises OSError, Ended."""
        fault = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            raise OSError(fault, os.strerror(fault))
        if self._context is not None:
            if self._tls is None:
                self._tls = self._context.wrap_socket(
                    self.sock, server_hostname=self._host, do_handshake_on_connect=False
                )
                self.sock = self._tls
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return select.EPOLLIN
            except ssl.SSLWantWriteError:
                return select.EPOLLOUT
        self.flush()
        return 0

    def flush(self) -> None:
        """Send what the framing has to say: never more than a fresh or an emptied socket takes at once."""
        out = self.framing.out
        if out:
            if self.sock.send(out) < len(out):
                raise Ended("the server does not read")
            self.framing.out = b""

    def receive(self) -> bytes:
        """Return the bytes that have arrived, up to a bound; raises Ended where the connection is gone."""
        try:
            piece = self._timestamped() if self._timed else self.sock.recv(_PIECE)
            if len(piece) == _PIECE:
                piece = self._more(piece)
            while self._tls is not None and (more := self._tls.pending()):
                piece += self._tls.recv(more)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError as error:
            raise Ended(error.strerror or str(error)) from error
        if not piece:
            raise Ended("the connection was closed")
        return piece

    def _timestamped(self) -> bytes:
        """Receive, and note when the kernel did (socket(7), SO_TIMESTAMPNS; on a stream it is that of the last segment)."""
        piece, ancillary, _, _ = self.sock.recvmsg(_PIECE, _ANCILLARY)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _TIMESTAMPS:
                seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                self.arrived = seconds + nanoseconds / 1e9 - (time.time() - time.monotonic())
        return piece

    def _more(self, piece: bytes) -> bytes:
        pieces = [piece]
        while len(pieces[-1]) == _PIECE and len(pieces) < _PIECES:
            try:
                pieces.append(self.sock.recv(_PIECE))
            except (BlockingIOError, ssl.SSLWantReadError):
                break
        return b"".join(pieces)

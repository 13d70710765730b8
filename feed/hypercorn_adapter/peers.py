"""Peers that are there and take nothing: they have `send_timeout`, and are told apart from peers that are gone.

The kernel gives up a connection whose peer has acknowledged nothing for `peer_timeout` (TCP_USER_TIMEOUT). But it counts a
window that stays shut in the same way, although the peer answers each probe: it would end a client that is slow to read
before `send_timeout`, as one that left. So whoever has shut its window is noticed here, in a look at all connections, and
the kernel is told to be more patient with it. What is on its way to a peer that acknowledges nothing stays the kernel's.
"""

import asyncio
import socket
from typing import Any

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.tcp_info import blocked_at

_LOOKS = 4
"""Looks at each connection in the shorter of the two times."""
_SLICE = 500
"""Connections that are looked at in one turn of the event loop: about a millisecond."""


class Peers:
    """Looks at the connections of a process; times in seconds. There is no timer while there is no connection."""

    def __init__(self, send_timeout: float, peer_timeout: float) -> None:
        self._send_timeout = send_timeout
        self._peer_timeout = peer_timeout
        self._interval = min(send_timeout, peer_timeout) / _LOOKS
        self._servers: dict[Any, tuple[int, float] | None] = {}
        """By connection: the octets that its peer had taken, and the loop time, when it was first seen to take no more."""
        self._unseen: list[Any] = []
        self._looking = False

    def add(self, server: Any) -> None:
        """Look at one more connection from now on."""
        self._servers[server] = None
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(self._interval, self._begin)

    def forget(self, server: Any) -> None:
        """Look at a connection no more, since it has ended."""
        self._servers.pop(server, None)

    def _begin(self) -> None:
        self._unseen = list(self._servers)
        self._go_on()

    def _go_on(self) -> None:
        """Look at some more, then let others have their turn; after the last one, wait for the next look."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for server in self._unseen[:_SLICE]:
            if server in self._servers:
                self._look(server, now)
        del self._unseen[:_SLICE]
        if self._unseen:
            loop.call_soon(self._go_on)
        elif self._servers:
            loop.call_later(self._interval, self._begin)
        else:
            self._looking = False

    def _look(self, server: Any, now: float) -> None:
        sock = server.transport.get_extra_info("socket")
        if sock is None or sock.fileno() == -1:
            return
        taken, before = blocked_at(sock), self._servers[server]
        if taken is None:
            if before is not None:
                self._servers[server] = None
                _be_patient(sock, self._peer_timeout)
        elif before is None or taken != before[0]:
            self._servers[server] = taken, now
            _be_patient(sock, self._send_timeout + self._peer_timeout)
        elif now - before[1] >= self._send_timeout:
            server.stalled = True
            drop(server)


def _be_patient(sock: Any, seconds: float) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
    except OSError:
        pass  # it has ended meanwhile

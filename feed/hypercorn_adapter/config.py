"""Hypercorn's configuration with what the adapter needs besides: bounds, the open connections, and pacers for herds."""

import socket
from collections.abc import Callable
from types import ModuleType

from hypercorn.config import Config, Sockets

from feed.hypercorn_adapter.admission import Admission
from feed.hypercorn_adapter.connection import Connections
from feed.hypercorn_adapter.peers import Peers
from feed.hypercorn_adapter.refusals import Refusals
from feed.wire.pacer import Pacer


class WireConfig(Config):
    """A Hypercorn `Config` for `feed serve`. Sizes in bytes, times in seconds."""

    write_buffer: int
    send_timeout: float
    close_timeout: float
    header_bytes: int
    h2_resets: int
    h2_reset_rate: int
    h2_control_rate: int
    connections: Connections
    admission: Admission
    peers: Peers
    refusals: Refusals
    is_stream: Callable[[bytes], bool]
    """Whether a request's target (RFC 9112, 3.2) is that of a stream: those who are refused one come back by themselves."""
    proxied: Callable[[str], bool]
    """Whether connections from an address begin with a PROXY header."""
    crowds: Callable[[str], bool]
    """Whether many clients come from an address: a proxy's connection carries what all of them do."""
    native: ModuleType | None = None
    """The extension that writes past the transports (feed/wire/native); None where only they write."""
    begin: Pacer
    ends: Pacer
    frames: Pacer

    def create_sockets(self) -> Sockets:
        """Return the listening sockets, each with this configuration."""
        found = super().create_sockets()
        secure = [ListeningSocket(self, sock) for sock in found.secure_sockets]
        plain = [ListeningSocket(self, sock) for sock in found.insecure_sockets]
        return Sockets([*secure], [*plain], found.quic_sockets)


class ListeningSocket(socket.socket):
    """A listening socket that knows the configuration by which its connections are served."""

    def __init__(self, config: WireConfig, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self.config = config

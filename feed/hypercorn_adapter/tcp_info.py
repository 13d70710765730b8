"""What the kernel knows of a TCP connection (TCP_INFO, tcp(7)): whether it is over, and whether its peer takes anything."""

import socket
import struct
from typing import Any

_CLOSED = 7
"""TCP_CLOSE in the kernel's numbering of states: the peer has reset the connection, or has been given up."""
_FIELDS = struct.Struct("=24xI92xQ16xI")
"""Of `struct tcp_info` in linux/tcp.h: tcpi_unacked, tcpi_bytes_acked and tcpi_notsent_bytes (Linux 4.6)."""


def is_over(sock: Any) -> bool:
    """Return whether a connection has ended in both directions, even where nobody has read its socket since."""
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED)
    except OSError:
        return True


def blocked_at(sock: Any) -> int | None:
    """Return how many octets the peer had taken when it shut its window on more; None where it has not shut it.

    A peer that shuts its window has acknowledged all that was sent to it, and there is more that may not be sent.
    """
    try:
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _FIELDS.size)
    except OSError:
        return None
    if len(found) < _FIELDS.size:
        return None
    unacknowledged, taken, unsent = _FIELDS.unpack(found)
    return int(taken) if unsent and not unacknowledged else None

"""What the kernel knows of a TCP connection (TCP_INFO, tcp(7)): whether it is over, and whether its peer takes anything."""

import socket
from typing import Any

_CLOSED = 7
"""TCP_CLOSE in the kernel's numbering of states: the peer has reset the connection, or has been given up."""
_STATE = 1
"""Octets of TCP_INFO up to and with the state."""


def is_over(sock: Any) -> bool:
    """Return whether a connection has ended in both directions, even where nobody has read its socket since."""
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE)[0] == _CLOSED)
    except OSError:
        return True

"""PROXY protocol headers, made by hand."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, kind: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, kind, len(body)) + body


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 4711, 443)


INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 4711, 443)
)  # fmt: skip

"""The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): what a proxy says of a connection before all else.

No I/O: `missing` says how many octets more are to be read, so that none of what follows is taken; `parse` what they mean.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIRST = 15
"""Octets of the shortest header, `PROXY UNKNOWN` and the end of its line."""
_LINE = 107
"""Octets of the longest header of version 1."""
_HEAD = 16
_BODY = 4096
"""The longest of version 2, behind its head: addresses, and whatever else the proxy tells (TLS, names)."""

Address = tuple[str, int]


class Malformed(ValueError):
    """What a connection began with is no header of the PROXY protocol."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of the connection that the proxy took; it stands for the socket where Hypercorn asks one for them."""

    client: Address
    server: Address
    family: socket.AddressFamily = socket.AF_INET

    def getpeername(self) -> Address:
        """Return the client's address and port."""
        return self.client

    def getsockname(self) -> Address:
        """Return the address and port that the client connected to."""
        return self.server


def missing(data: bytes) -> int:
    """How many octets must come next; 0 where the header is whole. Raises Malformed."""
    if len(data) < _FIRST:
        return _FIRST - len(data)
    if data.startswith(b"PROXY "):
        if data.endswith(b"\r\n"):
            return 0
        if len(data) >= _LINE:
            raise Malformed("a line that is too long")
        return 1 if data.endswith(b"\r") or len(data) == _LINE - 1 else 2
    if not data.startswith(_SIGNATURE):
        raise Malformed("no signature")
    if len(data) < _HEAD:
        return _HEAD - len(data)
    (length,) = struct.unpack_from("!H", data, 14)
    if length > _BODY:
        raise Malformed("too long")
    return max(0, _HEAD + int(length) - len(data))


def parse(data: bytes) -> Ends | None:
    """What a whole header says; None where the socket's own addresses stand. Raises Malformed."""
    return _line(data) if data.startswith(b"PROXY ") else _binary(data)


def _line(data: bytes) -> Ends | None:
    """Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 4711 443`."""
    words = data.removesuffix(b"\r\n").decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise Malformed("not six words")
    kind = IPv4Address if words[1] == "TCP4" else IPv6Address
    try:
        source, target = ip_address(words[2]), ip_address(words[3])
    except ValueError:
        raise Malformed("no address") from None
    if type(source) is not kind or type(target) is not kind:
        raise Malformed("an address of the other family")
    return _ends(str(source), _port(words[4]), str(target), _port(words[5]))


def _port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) < 65_536):
        raise Malformed("no port")
    return int(word)


def _binary(data: bytes) -> Ends | None:
    """Version 2: version and command, family and transport, addresses, and more that nobody here needs."""
    version, command, kind, body = data[12] >> 4, data[12] & 15, data[13], data[_HEAD:]
    if version != 2 or command > 1:
        raise Malformed("another version")
    if command == 0 or kind == 0x00 or kind == 0x31:  # the proxy itself, no family, a Unix socket
        return None
    sizes = {0x11: (4, socket.AF_INET), 0x21: (16, socket.AF_INET6)}
    if kind not in sizes:
        raise Malformed("not TCP")
    size, family = sizes[kind]
    if len(body) < 2 * size + 4:
        raise Malformed("addresses cut off")
    source, target = (socket.inet_ntop(family, body[place : place + size]) for place in (0, size))
    source_port, target_port = struct.unpack_from("!HH", body, 2 * size)
    return _ends(source, source_port, target, target_port)


def _ends(source: str, source_port: int, target: str, target_port: int) -> Ends:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    return Ends((source, source_port), (target, target_port), family)

"""The header of the PROXY protocol: read to its end and no further, and believed only where it is well formed."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feed.hypercorn_adapter.proxy_protocol import Ends, Malformed, missing, parse
from tests.proxy_headers import INET, INET6, SIGNATURE, v2

BEHIND = b"GET / HTTP/1.1\r\n\r\n\r\nPROXY "


def read(data: bytes) -> tuple[Ends | None, bytes]:
    """What a stream of octets begins with, and the rest; raises Malformed, or EOFError where it ends too early."""
    head = b""
    while more := missing(head):
        assert more > 0
        if len(data) < more:
            raise EOFError
        head, data = head + data[:more], data[more:]
    return parse(head), data


V4 = Ends(("192.0.2.1", 4711), ("198.51.100.1", 443), socket.AF_INET)
V6 = Ends(("2001:db8::1", 4711), ("2001:db8::2", 443), socket.AF_INET6)


@pytest.mark.parametrize(
    ("header", "ends"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n", V4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", V6),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),  # 107 octets, the longest
        (v2(1, 0x11, INET), V4),
        (v2(1, 0x21, INET6), V6),
        (v2(1, 0x11, INET + b"\x04\x00\x03abc" * 100), V4),
        (v2(0, 0x11, INET), None),  # LOCAL
        (v2(0, 0x00, b""), None),
        (v2(1, 0x00, b""), None),  # AF_UNSPEC
        (v2(1, 0x31, bytes(216)), None),  # AF_UNIX
    ],
)
def test_a_header_is_read_to_its_end_and_no_further(header: bytes, ends: Ends | None) -> None:
    assert read(header + BEHIND) == (ends, BEHIND)
    if ends is not None:
        assert (ends.getpeername(), ends.getsockname()) == (ends.client, ends.server)


@pytest.mark.parametrize(
    "header",
    [
        BEHIND,
        b"PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 1\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 \xb2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.1 4711 443\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE[:-1] + b"\r" + bytes(20),
        SIGNATURE + b"\x11\x11\x00\x0c" + INET,  # version 1
        SIGNATURE + b"\x22\x11\x00\x0c" + INET,  # no such command
        v2(1, 0x12, INET),  # UDP
        v2(1, 0x11, INET[:-1]),
        v2(1, 0x21, INET),
        v2(1, 0x41, INET),
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(70_000),
    ],
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(Malformed):
        read(header + b" " * 200)


ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
PORTS = st.integers(0, 65_535)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), PORTS, PORTS, st.binary(max_size=100))
def test_both_versions_say_the_same(source: object, target: object, port: int, other: int, behind: bytes) -> None:
    line = f"PROXY TCP4 {source} {target} {port} {other}\r\n".encode()
    body = socket.inet_aton(str(source)) + socket.inet_aton(str(target)) + struct.pack("!HH", port, other)
    assert read(line + behind) == read(v2(1, 0x11, body) + behind)


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda more: b"PROXY TCP4 " + more)
       | st.binary(max_size=300).map(lambda more: SIGNATURE + more))  # fmt: skip
def test_nothing_else_is_raised_and_little_is_read(data: bytes) -> None:
    try:
        _, rest = read(data)
    except (Malformed, EOFError):
        return
    assert len(data) - len(rest) <= 4096 + 16

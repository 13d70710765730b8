"""The head of a response over HTTP/2: HPACK (RFC 7541) by literals alone, so that no state of the connection is needed.

The hpack package, which is written in Python, compresses a head in some hundred microseconds: it searches its tables and
applies Huffman's code. A stream has one head and then events for hours, so that a hundred octets more do not matter, and the
time does: ten thousand clients that come back together wait for each other's heads.
"""

from h2.connection import ConnectionInputs, H2Connection
from h2.stream import StreamInputs

from feed.hypercorn_adapter.headers import Headers

_STATUS_200 = b"\x88"
"""The field `:status: 200`, entry 8 of the static table (RFC 7541, appendix A)."""
_STATUS_NAME = b"\x08"
"""A literal without indexing, whose name is that of entry 8: `:status`."""
_LITERAL, _NEVER_INDEXED = b"\x00", b"\x10"
"""Literals with names of their own (RFC 7541, 6.2.2 and 6.2.3)."""
_SECRET = frozenset({b"set-cookie", b"authorization"})
_HEADERS_FRAME, _END_HEADERS = b"\x01", b"\x04"
"""Type and flag of a HEADERS frame that holds the whole head (RFC 9113, 6.2)."""


def encoded_head(status: int, headers: Headers) -> bytes:
    """Return a header block; names must be in lower case."""
    parts = [_STATUS_200] if status == 200 else [_STATUS_NAME, b"\x03%d" % status]
    for name, value in headers:
        parts += (
            _NEVER_INDEXED if name in _SECRET else _LITERAL,
            _length(len(name)),
            name,
            _length(len(value)),
            value,
        )
    return b"".join(parts)


def send_head(connection: H2Connection, stream_id: int, status: int, headers: Headers) -> bytes:
    """Note that the head of a response leaves, and return its frame.

    Empty where h2 has written it itself: the head is longer than a frame, or the client has changed the size of the table
    (which has to be acknowledged in front of the next head). Raises h2's ProtocolError.
    """
    block = encoded_head(status, headers)
    if len(block) > connection.max_outbound_frame_size or connection.encoder.table_size_changes:
        connection.send_headers(stream_id, [(b":status", b"%d" % status), *headers])
        return b""
    connection.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
    connection.streams[stream_id].state_machine.process_input(StreamInputs.SEND_HEADERS)
    return b"".join((len(block).to_bytes(3, "big"), _HEADERS_FRAME, _END_HEADERS, stream_id.to_bytes(4, "big"), block))


def _length(value: int) -> bytes:
    """Return the length of a text that is not in Huffman's code: an integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if value < 127:
        return value.to_bytes(1, "big")
    octets = bytearray((127,))
    value -= 127
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    octets.append(value)
    return bytes(octets)

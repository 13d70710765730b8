"""The bytes of streams out of HTTP/1.1 chunks and HTTP/2 frames, by hand: a reader must cost less than what it measures."""

import re
import struct
from collections.abc import Sequence
from typing import Protocol

from hpack import Decoder, HPACKError

from feed.bench.spec import Spec

Request = tuple[str, tuple[tuple[str, str], ...]]
"""A path and more headers."""
Body = tuple[int, bytes]
"""The place of a stream on its connection, from 0, and bytes of its body."""

_CHUNK = re.compile(rb"(?:\r\n)?([0-9a-fA-F]{1,12})[^\r\n]*\r\n")
_HEADER = struct.Struct(">HBBBI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_ACK, _END_STREAM, _PADDED = 0x1, 0x1, 0x8
_WINDOW = 2**31 - 1
"""Bytes that a server may send before it hears of more room, on a stream and on a connection."""
_REFILL = 2**29
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_OK = 0x88
"""`:status: 200` in the static table (RFC 7541, appendix A)."""
_LONGEST_HEAD = 64 * 1024


class Ended(Exception):
    """The server, or the network, ended a stream or a connection."""


class Framing(Protocol):
    """What is said on a connection (`out`, to be sent and emptied) and what is heard."""

    out: bytes
    over: int
    """Streams that the server has ended."""

    def bodies(self, piece: bytes) -> list[Body]:
        """The bytes of bodies in `piece`; raises Ended."""


class Chunked:
    """An HTTP/1.1 response: chunked, or simply until the connection closes."""

    def __init__(self, spec: Spec, requests: Sequence[Request]) -> None:
        ((path, headers),) = requests
        lines = [f"GET {path} HTTP/1.1", f"Host: {spec.authority}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.out = "\r\n".join([*lines, "", ""]).encode()
        self.over = 0
        self._rest = b""
        self._left = 0  # of the chunk's bytes
        self._headed = False
        self._chunked = False

    def bodies(self, piece: bytes) -> list[Body]:
        """The body's bytes in `piece`; raises Ended."""
        if self._rest:
            piece, self._rest = self._rest + piece, b""
        if not self._headed:
            head, found, piece = piece.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                if len(head) > _LONGEST_HEAD:
                    raise Ended("the answer is not HTTP")
                return []
            self._read_head(head)
        if not self._chunked:
            return [(0, piece)] if piece else []
        found_bodies: list[Body] = []
        at, size = 0, len(piece)
        while at < size:
            if self._left:
                body = piece[at : at + self._left]
                found_bodies.append((0, body))
                at += len(body)
                self._left -= len(body)
                continue
            match = _CHUNK.match(piece, at)
            if match is None:
                self._rest = piece[at:]
                if len(self._rest) > _LONGEST_HEAD:
                    raise Ended("the answer is not HTTP")
                break
            at = match.end()
            self._left = int(match[1], 16)
            if not self._left:
                self.over = 1
                break
        return found_bodies

    def _read_head(self, head: bytes) -> None:
        status, _, rest = head.partition(b"\r\n")
        if b" 200 " not in status + b" ":
            raise Ended(f"the server answered {status.decode(errors='replace')}")
        self._headed = True
        self._chunked = b"chunked" in rest.lower()


class Frames:
    """An HTTP/2 connection with some streams (RFC 9113); nothing of it is compressed on our side."""

    def __init__(self, spec: Spec, requests: Sequence[Request]) -> None:
        # ENABLE_PUSH 0, INITIAL_WINDOW_SIZE
        settings = struct.pack(">HIHI", 0x2, 0, 0x4, _WINDOW)
        out = [_PREFACE, _frame(_SETTINGS, 0, 0, settings), _window(0, _WINDOW - 65_535)]
        scheme = b"\x87" if spec.tls else b"\x86"
        for place, (path, headers) in enumerate(requests):
            block = b"\x82" + scheme + b"\x04" + _text(path) + b"\x01" + _text(spec.authority)
            block += b"\x0f\x04" + _text("text/event-stream")  # accept
            block += b"".join(b"\x00" + _text(name.lower()) + _text(value) for name, value in headers)
            out.append(_frame(_HEADERS, _END_STREAM | 0x4, 2 * place + 1, block))
        self.out = b"".join(out)
        self.over = 0
        self._rest = b""
        self._left = 0  # of the DATA frame's bytes
        self._place = 0
        self._taken = 0  # of the connection's window

    def bodies(self, piece: bytes) -> list[Body]:
        """The bodies' bytes in `piece`; what must be answered is put into `out`. Raises Ended."""
        if self._rest:
            piece, self._rest = self._rest + piece, b""
        found: list[Body] = []
        at, size = 0, len(piece)
        while at < size:
            if self._left:
                body = piece[at : at + self._left]
                found.append((self._place, body))
                at += len(body)
                self._left -= len(body)
                continue
            if size - at < 9:
                self._rest = piece[at:]
                break
            high, low, kind, flags, stream = _HEADER.unpack_from(piece, at)
            length = high << 8 | low
            if kind == _DATA and not flags & (_PADDED | _END_STREAM):
                self._left, self._place = length, stream >> 1
                self._taken += length
                at += 9
                continue
            if size - at < 9 + length:
                self._rest = piece[at:]
                break
            self._other(kind, flags, stream, piece[at + 9 : at + 9 + length], found)
            at += 9 + length
        if self._taken > _REFILL:
            self.out += _window(0, self._taken)
            self._taken = 0
        return found

    def _other(self, kind: int, flags: int, stream: int, payload: bytes, found: list[Body]) -> None:
        if kind == _DATA:
            self._taken += len(payload)
            body = payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if body:
                found.append((stream >> 1, body))
        elif kind == _HEADERS and not flags & _PADDED and _OK not in payload[:4]:
            raise Ended(_refusal(payload))
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self.out += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind == _GOAWAY:
            raise Ended("the server closed the connection")
        if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self.over += 1


def _refusal(block: bytes) -> str:
    try:
        fields = Decoder().decode(block, raw=True)
        status = next((value.decode() for name, value in fields if name == b":status"), "")
    except HPACKError:  # compressed by what went before, which nobody kept
        status = ""
    return f"the server answered {status or 'something else than 200'}"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _window(stream: int, more: int) -> bytes:
    return _frame(0x8, 0, stream, more.to_bytes(4, "big"))


def _text(text: str) -> bytes:
    """A string literal without Huffman's code (RFC 7541, 5.2)."""
    data = text.encode()
    size = len(data)
    if size < 0x7F:
        return bytes((size,)) + data
    prefix, size = bytearray((0x7F,)), size - 0x7F
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + data

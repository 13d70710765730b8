"""HTTP/1.1 on one connection, read by httptools (llhttp, in C), in place of Hypercorn's H11Protocol.

What it does that Hypercorn 0.18 does not:
- The body of a response is written through a wire, and the head leaves in the same write as the first bytes of the body.
- The status line has a reason phrase.
- An answer that did not need the whole request says `Connection: close`, and the connection lingers (tcp.py).
- A request behind one that is not answered yet waits in a buffer, within the bound of a head; Hypercorn stops all reading,
  so that it never notices that the client left.
- Upgrades to WebSocket are ignored, as RFC 9110, 7.8 allows: there is none here. One to HTTP/2 (h2c) is followed unless the
  request has a body.

The parser is never given more than one request: a head ends with an empty line, a body has a length, and one in chunks ends
with a line. So it never reads into a request before the one in front of it is answered.
"""

import re
from typing import TYPE_CHECKING, Any, cast

import httptools

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.exchange import Exchange, scope_of
from feed.hypercorn_adapter.headers import Headers, dates
from feed.hypercorn_adapter.http1_head import BadHead, check_head, response_head
from feed.hypercorn_adapter.http1_wire import Http1Wire
from feed.wire.chunk import Chunk
from feed.wire.wire import Disconnected

if TYPE_CHECKING:
    from feed.hypercorn_adapter.tcp import TcpConnection

STREAM_ID = 1
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_END = b"\r\n\r\n"
_LINE_END = b"\r\n"
_SLICE = 64 * 1024
"""Bytes of a body in chunks that the parser is given at once."""
_BODY_HELD = 64 * 1024
"""Bytes of a request's body that wait for the application before the socket is no longer read."""


class Http1:
    """The server's end of HTTP/1.1 on one connection."""

    def __init__(self, server: "TcpConnection") -> None:
        self.server = server
        self._config = server.config
        self._parser: Any = httptools.HttpRequestParser(self)
        self._pending = b""  # what came and was not given to the parser yet
        self._head_size = 0  # bytes of the head, or of the trailers, so far
        self._tail = b""  # the last bytes that the parser has, in which the end of a head, or of a line, may begin
        self._target = b""
        self._headers: Headers = []
        self._begun = False  # whether the first line has begun
        self._whole_head = False
        self._chunked_body = False
        self._body_left = 0  # bytes of the body to come, if its length is known
        self._held = 0  # bytes of the body that the application has not taken
        self._exchange: Exchange | None = None
        self._reading_body = False
        self._close_after = False  # whether the response under way is the connection's last
        self._done = False  # nothing is read any more
        self._confused = False  # it is not known where the next request begins

    @property
    def half_read(self) -> bool:
        """Whether the client is in the middle of a request: it may be sending more, and has not read our answer."""
        return self._reading_body or self._confused

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._done:
            return
        self._pending = self._pending + data if self._pending else data
        self._read()

    def connection_lost(self) -> None:
        """Tell whoever answers that the client is gone."""
        self._done = True
        self._pending = b""
        self._parser = None  # it refers to this object
        if self._exchange is not None:
            self._exchange.client_gone()

    def closing(self) -> None:
        """Read no more."""
        self._done = True

    def stop(self) -> None:
        """Let the response under way be the last."""
        self._close_after = True

    def _read(self) -> None:
        """Give the parser what it may have now."""
        try:
            while self._pending and not self._done:
                if self._reading_body:
                    self._read_body()
                elif self._exchange is None:
                    self._read_head()
                else:  # the request before it is not answered yet
                    if len(self._pending) > self._config.header_bytes:
                        self.server.close()
                    return
        except httptools.HttpParserUpgrade:
            self._refuse(400)  # CONNECT, or an upgrade inside a body: neither can come here
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501)  # RFC 9110, 9.1: a method that nobody here knows
        except httptools.HttpParserError:
            self._refuse(400)
        except BadHead as error:
            self._refuse(error.status)

    def _read_head(self) -> None:
        data = self._pending
        if not self._begun:  # empty lines may come first (RFC 9112, 2.2), but no bare LF
            before = self._tail[-1:]
            empty = before + _EMPTY_LINES.match(data)[0]  # type: ignore[index]
            if _BARE_LF.search(empty, len(before)):
                raise BadHead("a bare LF")
        joined = self._tail + data
        end = joined.find(_END)
        if end >= 0:
            size = end + len(_END) - len(self._tail)
            data, self._pending = data[:size], data[size:]
            self._tail = b""
        else:
            self._tail, self._pending = joined[-3:], b""
        self._head_size += len(data)
        if self._head_size > self._config.header_bytes:
            raise BadHead("too long a head", 431)
        if not data:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return
        if end >= 0 and not self._whole_head:
            raise BadHead("no head")  # nothing but empty lines
        if self._whole_head:
            self._begin()

    def _read_body(self) -> None:
        data, place = self._pending, 0
        while self._reading_body and place < len(data):
            if not self._chunked_body:
                size = self._body_left
            elif self._tail and data.startswith(b"\n", place):
                size = 1
            else:
                end = data.find(_LINE_END, place, place + _SLICE)
                size = end + len(_LINE_END) - place if end >= 0 else _SLICE
            piece = data[place : place + size]
            place += len(piece)
            self._body_left -= len(piece)
            self._tail = b"\r" if self._chunked_body and piece.endswith(b"\r") else b""
            self._parser.feed_data(piece)
        self._pending = data[place:]

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        if self._exchange is not None:
            raise BadHead("a request inside of what was given as the body of another")
        self._begun = True
        self._target, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those behind a body in chunks are counted and ignored."""
        if not self._reading_body:
            self._headers.append((name.lower(), value.strip(b" \t")))
            return
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._config.header_bytes:
            raise BadHead("too long trailers", 431)

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self._whole_head = True

    def on_body(self, piece: bytes) -> None:
        """Hand a piece of the body to the application."""
        if self._exchange is not None and not self._exchange.complete:
            self._held += len(piece)
            if self._held > _BODY_HELD:
                self.server.transport.pause_reading()
            self._exchange.take_body(piece)

    def on_message_complete(self) -> None:
        """Note that the request has come to its end."""
        self._reading_body = False
        self._tail = b""
        self._head_size = 0
        if self._exchange is not None:
            self._exchange.take_end()

    # A request.

    def _begin(self) -> None:
        """Answer the request whose head has come."""
        self._whole_head = self._begun = False
        self._head_size = 0
        method, version, headers = self._parser.get_method(), self._parser.get_http_version(), self._headers
        self._headers = []
        check_head(method, self._target, version, headers)
        length, expects = 0, False
        self._chunked_body = False
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                self._chunked_body = True
            elif name == b"expect":
                expects = value.lower() == b"100-continue" and version == "1.1"
        self._body_left = length
        self._held = 0
        self._reading_body = self._chunked_body or length > 0
        self._close_after = not self._parser.should_keep_alive() or self.server.terminated or version == "1.0"
        server = self.server
        server.not_idle()
        if server.rations.used_up():
            self._done = True
            if not self._config.is_stream(self._target):  # to an EventSource a 429 means that it must never come back
                self._answer(429)
            server.close()
            return
        if expects and self._reading_body and not self._pending:
            server.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        scope = scope_of(method.decode("ascii").upper(), self._target, headers, version, server, server.parts.state)
        wire = Http1Wire(server, chunked=version == "1.1")
        exchange = self._exchange = Exchange(self, STREAM_ID, scope, wire)
        if not self._reading_body:
            exchange.received_whole = True
        exchange.begin(server.parts.app, paced=True)

    def _upgrade(self) -> None:
        """Go on over HTTP/2 if the request asks for that and has no body; otherwise ignore what it asks for."""
        headers = self._headers
        names = dict(headers)
        has_body = b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"
        method, version = self._parser.get_method(), self._parser.get_http_version()
        check_head(method, self._target, version, headers)
        if names.get(b"upgrade", b"").lower() == b"h2c" and b"http2-settings" in names and not has_body:
            self._done = True
            self.server.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
            request = [
                (b":method", method),
                (b":path", self._target),
                (b":authority", names.get(b"host", b"")),
                *headers,
            ]
            rest, self._pending, self._parser = self._pending, b"", None
            self.server.upgrade(request, names[b"http2-settings"], rest)
            return
        # llhttp reads no body behind such a head. So it gets the same head anew, without the field that it stumbles over.
        kept = [field for field in headers if field[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self._whole_head = False
        head = b"%b %b HTTP/%b\r\n" % (method, self._target, version.encode())
        self._parser.feed_data(head + b"".join([b"%b: %b\r\n" % field for field in kept]) + b"\r\n")
        self._begin()

    def _refuse(self, status: int) -> None:
        """Answer what cannot be understood, unless an answer is under way, and close."""
        self._done = self._confused = True
        exchange = self._exchange
        if exchange is None or not exchange.started:
            self._answer(status)
        if exchange is not None:
            exchange.client_gone()
        self.server.close()

    def _answer(self, status: int) -> None:
        head = [(b"content-length", b"0"), (b"connection", b"close"), (b"date", dates.now())]
        self.server.write(response_head(status, head))

    # What the exchange calls.

    def send_head(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """Write the head of the response, with the framing of its body (RFC 9112, 6)."""
        wire = cast(Http1Wire, exchange.wire)
        close = self._close_after or self._reading_body or self.server.terminated
        bodyless = exchange.method == "HEAD" or status in (204, 304)
        has_length = any(name == b"content-length" for name, _ in headers)
        if status == 204:
            headers = [field for field in headers if field[0] != b"content-length"]
            wire.chunked = False
        elif has_length or status == 304:
            wire.chunked = False
        elif wire.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        else:
            close = wire.until_close = True
        if bodyless:
            wire.chunked = False
        wire.bodyless = bodyless
        headers.append((b"date", dates.now()))
        if close:
            self._close_after = True
            headers.append((b"connection", b"close"))
        wire.keep_head(response_head(status, headers))

    async def send_body(self, exchange: Exchange, data: bytes) -> None:
        """Write a piece of the body when the client takes it."""
        wire = cast(Http1Wire, exchange.wire)
        if not wire.bodyless:
            try:
                await wire.send(Chunk(data))
            except Disconnected:
                exchange.client_gone()

    def send_end(self, exchange: Exchange) -> None:
        """Write the end of the body."""
        wire = cast(Http1Wire, exchange.wire)
        wire.release_head()
        if wire.chunked and not wire.closed:
            self.server.write(b"0\r\n\r\n")

    def consumed(self, exchange: Exchange, size: int) -> None:
        """Read on if the socket was not read any more."""
        before, self._held = self._held, max(0, self._held - size)
        if before > _BODY_HELD >= self._held and not self.server.transport.is_closing():
            self.server.transport.resume_reading()

    def exchange_over(self, exchange: Exchange) -> None:
        """Go on with the next request, or close."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        server = self.server
        if exchange.closed or server.transport.is_closing():
            server.close()
        elif not exchange.complete:
            # The last chunk, or bytes of the announced length, are missing: that tells the client. Where only the end of the
            # connection is the end of the response, a reset must tell it.
            wire = cast(Http1Wire, exchange.wire)
            wire.release_head()
            if wire.until_close:
                drop(server)
            else:
                server.close()
        elif self._close_after or self._reading_body:
            if self._held:
                server.transport.resume_reading()
            server.close()
        elif server.terminated:
            server.close()
        elif self._pending:
            self._read()
            if self._exchange is None and not self._done:
                server.idle()
        else:
            server.idle()

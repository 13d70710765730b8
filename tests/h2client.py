"""An HTTP/2 client, frame by frame: it sends what the test says, and opens windows only where the test lets it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import orjson
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.reader import Frame as EventFrame
from tests.reader import parse

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM = "/v1/jobs/stream"

ENHANCE_YOUR_CALM = 11
INTERNAL_ERROR = 2
NO_ERROR = 0


class Exchange:
    """One request and what has come of its response."""

    def __init__(self, client: "H2Client", stream_id: int) -> None:
        self.client = client
        self.id = stream_id
        self.headers: dict[str, str] = {}
        self.body = bytearray()  # what nobody has taken yet, for streams; all of it, else
        self.taken = 0  # octets of DATA that have come
        self.ended = False
        self.error: int | None = None  # of the RST_STREAM that ended it
        self.last_id: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended in either way."""
        return self.ended or self.error is not None

    @property
    def status(self) -> int:
        """The status, once there are headers."""
        return int(self.headers[":status"])

    async def response(self) -> "Exchange":
        """Read until it has ended, cleanly."""
        await self.client.until(lambda: self.over)
        assert self.error is None, f"stream {self.id} was reset with {self.error}"
        return self

    async def json(self) -> Any:
        """The body of its whole response."""
        return orjson.loads((await self.response()).body)

    async def reset(self) -> int:
        """Read until it was reset: the error code."""
        await self.client.until(lambda: self.over)
        assert self.error is not None, f"stream {self.id} ended cleanly"
        return self.error

    async def frame(self) -> EventFrame | None:
        """The next event; None at a clean end."""
        await self.client.until(lambda: self.over or b"\n\n" in self.body)
        if b"\n\n" not in self.body:
            assert self.error is None, f"stream {self.id} was reset with {self.error}"
            return None
        block, _, self.body = self.body.partition(b"\n\n")
        found = parse(bytes(block))
        self.last_id = found.id or self.last_id
        return found

    async def events(self, event: str) -> list[EventFrame]:
        """Events up to and including the next of this name."""
        seen: list[EventFrame] = []
        while not seen or seen[-1].event != event:
            found = await self.frame()
            assert found is not None, f"the stream ended before {event}"
            seen.append(found)
        return seen

    async def jobs(self, count: int) -> list[EventFrame]:
        """The next `count` postings; other events are passed over."""
        seen: list[EventFrame] = []
        while len(seen) < count:
            found = await self.frame()
            assert found is not None, f"the stream ended after {len(seen)} of {count}"
            if found.event in ("posted", "updated", "closed"):
                seen.append(found)
        return seen

    async def rest(self) -> list[EventFrame]:
        """Events until the clean end."""
        seen = []
        while (found := await self.frame()) is not None:
            seen.append(found)
        return seen


class H2Client:
    """One connection. It reads when asked to, acknowledges SETTINGS and PING, and opens windows that are not `shut`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> None:
        where = urlsplit(url)
        self.exchanges: dict[int, Exchange] = {}
        self.shut: set[int] = set()  # windows that stay as they are, by stream; 0 is the connection's
        self.came: list[tuple[str, int]] = []  # what has come, in order: ("DATA", 1), ("END_STREAM", 1), ("GOAWAY", 0)
        self.goaway: int | None = None  # the first one's error code
        self.settings: dict[int, int] = {}  # the server's
        self.over = False
        self.writer = writer
        self._reader = reader
        self._reading = asyncio.Lock()
        self._rest = b""
        self._next = 1
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._request = [(":scheme", where.scheme), (":authority", where.netloc)]

    @property
    def port(self) -> int:
        """Our end's."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    # Sending

    async def send(self, *frames: Frame | bytes) -> None:
        """Send frames as they are."""
        self.writer.write(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))
        await self.writer.drain()

    def headers(self, fields: list[tuple[Any, Any]], *, ended: bool = True, **priority: Any) -> HeadersFrame:
        """A HEADERS frame that opens the next stream with these fields."""
        stream_id, self._next = self._next, self._next + 2
        self.exchanges[stream_id] = Exchange(self, stream_id)
        frame = HeadersFrame(stream_id, self._encoder.encode(fields), **priority)
        frame.flags.add("END_HEADERS")
        if ended:
            frame.flags.add("END_STREAM")
        if priority:
            frame.flags.add("PRIORITY")
        return frame

    def asking(
        self, path: str, method: str = "GET", fields: dict[str, str] | None = None, **more: Any
    ) -> tuple[Exchange, HeadersFrame]:
        """A request that is not sent yet."""
        head = [(":method", method), (":path", path), *self._request, *(fields or {}).items()]
        frame = self.headers(head, **more)
        return self.exchanges[frame.stream_id], frame

    async def get(self, path: str, method: str = "GET", fields: dict[str, str] | None = None, **more: Any) -> Exchange:
        """Send a request without a body (`ended=False`: the body is to come)."""
        exchange, frame = self.asking(path, method, fields, **more)
        await self.send(frame)
        return exchange

    async def stream(self, query: str = "", **more: Any) -> Exchange:
        """Open a stream and read its opening."""
        exchange = await self.get(STREAM + query, **more)
        await exchange.events("synced")
        return exchange

    async def upload(self, exchange: Exchange, data: bytes) -> None:
        """Send the rest of a request; no more than the windows of a new connection let through."""
        pieces = [data[place : place + 16_384] for place in range(0, len(data), 16_384)]
        frames = [DataFrame(exchange.id, piece) for piece in pieces]
        frames[-1].flags.add("END_STREAM")
        await self.send(*frames)

    async def ping(self) -> None:
        """Return when the server has dealt with all that was sent before."""
        before = self.came.count(("PING", 0))
        await self.send(PingFrame(opaque_data=b"feedfeed"))
        await self.until(lambda: self.came.count(("PING", 0)) > before)

    # Reading

    async def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        """Read until it holds. Raises ConnectionError where the connection ends before."""
        async with asyncio.timeout(seconds):
            while not condition():
                async with self._reading:
                    if not condition() and not await self._more() and not condition():
                        raise ConnectionResetError(f"the connection ended: {self.came[-10:]}")

    async def closed(self, seconds: float = 10) -> None:
        """Read until the server has closed the connection, or cut it."""
        with suppress(ConnectionError):
            await self.until(lambda: self.over, seconds)

    async def _more(self) -> bool:
        try:
            piece = b"" if self.over else await self._reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            piece = b""
        self.over = not piece
        self._rest += piece
        replies = b""
        place = 0
        while len(self._rest) >= place + 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest)[place : place + 9])
            if len(self._rest) < place + 9 + length:
                break
            frame.parse_body(memoryview(self._rest)[place + 9 : place + 9 + length])
            place += 9 + length
            replies += self._take(frame)
        self._rest = self._rest[place:]
        if replies and not self.over:
            with suppress(ConnectionError):
                await self.send(replies)
        return not self.over

    def _take(self, frame: Frame) -> bytes:
        """Note a frame; what is to be sent in return."""
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings |= frame.settings
            return SettingsFrame(flags=["ACK"]).serialize()
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            return PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]).serialize()
        self.came.append((type(frame).__name__.removesuffix("Frame").upper(), frame.stream_id))
        replies = b""
        exchange = self.exchanges.get(frame.stream_id)
        if isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code if self.goaway is None else self.goaway
        elif isinstance(frame, HeadersFrame):
            assert "END_HEADERS" in frame.flags
            fields = self._decoder.decode(frame.data)
            if exchange is not None:
                exchange.headers |= dict(fields)
        elif isinstance(frame, DataFrame) and exchange is not None:
            exchange.body += frame.data
            exchange.taken += len(frame.data)
            for number in {0, frame.stream_id} - self.shut if frame.data else ():
                replies += WindowUpdateFrame(number, len(frame.data)).serialize()
        elif isinstance(frame, RstStreamFrame) and exchange is not None:
            exchange.error = frame.error_code
        if "END_STREAM" in frame.flags:
            self.came.append(("END_STREAM", frame.stream_id))
            if exchange is not None:
                exchange.ended = True
        return replies


def insecure() -> ssl.SSLContext:
    """A context for h2 that believes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def h2client(
    url: str, *, buffer: int | None = None, settings: dict[int, int] | None = None, preface: bool = True
) -> AsyncIterator[H2Client]:
    """Connect to the service at `url`; `buffer` keeps the kernel from holding much of what is not read."""
    where = urlsplit(url)
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (where.hostname, where.port))
        reader, writer = await asyncio.open_connection(
            sock=sock, limit=buffer or 65536,
            **({"ssl": insecure(), "server_hostname": where.hostname} if where.scheme == "https" else {}),
        )  # fmt: skip
    except BaseException:
        sock.close()
        raise
    client = H2Client(reader, writer, url)
    try:
        if preface:
            await client.send(PREFACE, SettingsFrame(settings=settings or {}))
        yield client
    finally:
        writer.transport.abort()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

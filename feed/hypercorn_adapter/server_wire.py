"""The wire of a response under Hypercorn: past its buffers and locks, whole writes into the transport."""

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from feed.wire.chunk import Chunk
from feed.wire.wire import Disconnected, Wire

if TYPE_CHECKING:
    from feed.wire.native._batch import Member


class ServerWire(Wire):
    """The body of one response on one of Hypercorn's connections.

    All bytes of the body go through here; the head went through ASGI before, and the end goes through ASGI after.
    """

    __slots__ = ("_get_size", "_is_closing", "_limit", "_member", "_on_close", "_put", "carry", "gave_up", "server")

    def __init__(self, server: Any) -> None:
        super().__init__()
        transport = server.transport
        self.server = server  # the connection (tcp.py)
        # Without a native writer nobody asks the door what waits.
        self._put = transport.write if server.door.socket is None else server.door.write
        self._get_size = transport.get_write_buffer_size
        self._is_closing = transport.is_closing
        self._limit: int = server.config.write_buffer
        self._member: Member | None = None
        self.gave_up = False  # on a window that its client did not open
        self.carry: Callable[[Coroutine[Any, Any, None]], None] | None = None
        self._on_close: Callable[[], None] | None = None

    def take(self, body: Coroutine[Any, Any, None], on_close: Callable[[], None]) -> None:
        """Let `body` write the body, in a task of the connection's own; call `on_close` when the client is gone.

        The application may return: what it was called with, and every middleware's frame, need not live as long as the
        stream does. What the client may yet send is not read.
        """
        if self.closed or self.carry is None:
            on_close()
            body.close()
        else:
            self._on_close = on_close
            self.carry(body)

    @property
    def stalled(self) -> bool:
        """Whether a window stayed shut, or the socket full, for `send_timeout`."""
        return self.gave_up or bool(self.server.stalled)

    def refused(self) -> None:
        """Count this response as one that only says goodbye: too many of them are refused before they cost a request."""
        self.server.rations.count()

    @abstractmethod
    def reset(self) -> None:
        """End this response in the middle, at once; other responses on the same connection go on."""

    def close(self) -> None:
        """Write nothing any more, and tell who asked for it in `take`: the client is gone."""
        super().close()
        if self._member is not None:
            self._member.open = False
        on_close, self._on_close, self.carry = self._on_close, None, None
        if on_close is not None:
            on_close()

    def member(self) -> "Member | None":
        """Return what the native writer writes to, or None where it cannot: over TLS, or without the extension."""
        if self._member is None and self.server.door.socket is not None and not self.closed:
            self._member = self._new_member()
        return self._member

    @abstractmethod
    def _new_member(self) -> "Member | None":
        """Make what the native writer writes to; None where it cannot write such a response."""

    def write_rest(self, chunk: Chunk, sent: int) -> None:
        """Hand the rest to the transport, before anything else is; the connection ends where that fails."""
        try:
            self._put(self._framed(chunk)[sent:])
        except Exception:
            self.server.transport.abort()  # half a frame is on its way: nothing else can be said on this connection
            raise

    @abstractmethod
    def _framed(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk as they are on the connection."""

    async def _writable(self) -> None:
        """Wait, in turn with the other streams of the connection, until the transport holds no more than it may."""
        turn = self.server.turn
        if self._get_size() > self._limit or turn.locked():
            async with turn:
                try:
                    await self.server.drained()
                except OSError:
                    raise Disconnected from None
        if self.closed or self._is_closing():
            raise Disconnected

"""The wire: what a stream sees of the connection under it. Push while it is writable, pull when it is not."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from feed.wire.chunk import Chunk


class Disconnected(Exception):
    """The client has left, or was cut off."""


class Wire(ABC):
    """The body of one response, past Hypercorn's buffers and locks: whole writes into the transport.

    All bytes of the body go through here; the head went through ASGI before, and the end goes through ASGI after.
    """

    __slots__ = ("_get_size", "_is_closing", "_limit", "_on_close", "_put", "_server", "carry", "closed", "gave_up")

    def __init__(self, server: Any) -> None:
        transport = server.writer.transport
        self._server = server  # of wire/tcp.py, one a connection
        self._put = transport.write
        self._get_size = transport.get_write_buffer_size
        self._is_closing = transport.is_closing
        self._limit: int = server.config.write_buffer
        self.closed = False
        self.gave_up = False  # on a window that its client did not open
        self.carry: Callable[[Coroutine[Any, Any, None]], None] | None = None
        self._on_close: Callable[[], None] | None = None

    def take(self, body: Coroutine[Any, Any, None], on_close: Callable[[], None]) -> None:
        """Let `body` write the body, in a task of the connection's own; `on_close` is told when the client is gone.

        The application may return: what it was called with, and every middleware's frame, need not live as long as the
        stream does. What the client may yet send is not read.
        """
        if self.closed or self.carry is None:
            on_close()
            body.close()
        else:
            self._on_close = on_close
            self.carry(body)

    @abstractmethod
    def write(self, chunk: Chunk) -> bool:
        """Push: hand a chunk to the transport now; return False where the transport would hold more than it may."""

    @abstractmethod
    async def send(self, chunk: Chunk) -> None:
        """Pull: hand a chunk over as the client takes it, and cut off a client that takes nothing for `send_timeout`.

        Raises Disconnected.
        """

    @property
    def stalled(self) -> bool:
        """Whether it ended because its client took nothing for `send_timeout`."""
        return self.gave_up or self._server.stalled

    def refused(self) -> None:
        """Count this response as one that only says goodbye: too many of them are refused before they cost a request."""
        self._server.rations.count()

    @abstractmethod
    def reset(self) -> None:
        """End this response in the middle, at once; other responses on the same connection go on."""

    @abstractmethod
    def cut(self) -> None:
        """End this response in the middle, at once, and with it a connection whose client takes nothing at all."""

    def close(self) -> None:
        """Note that the client is gone: nothing is written any more."""
        self.closed = True
        on_close, self._on_close, self.carry = self._on_close, None, None
        if on_close is not None:
            on_close()

    async def _writable(self) -> None:
        """Wait, in turn with the other streams of the connection, until the transport holds no more than it may."""
        turn = self._server.turn
        if self._get_size() > self._limit or turn.locked():
            async with turn:
                try:
                    await self._server.drained()
                except OSError:
                    raise Disconnected from None
        if self.closed or self._is_closing():
            raise Disconnected

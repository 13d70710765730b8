"""The wire of a response over HTTP/1.1, and its head, which leaves in one write with what comes of the body at once."""

from typing import TYPE_CHECKING, Any

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.server_wire import ServerWire
from feed.wire.chunk import Chunk

if TYPE_CHECKING:
    from feed.wire.native._batch import Member


class Http1Wire(ServerWire):
    """The body of a response: in chunks, or as plain bytes of a length that was announced or until the connection ends."""

    __slots__ = ("_head", "bodyless", "chunked", "until_close")

    def __init__(self, server: Any, *, chunked: bool) -> None:
        super().__init__(server)
        self.chunked = chunked
        self.bodyless = False
        self.until_close = False
        """Whether only the end of the connection tells where the body ends (HTTP/1.0)."""
        self._head = b""  # of the response, which waits for the first bytes of the body until the end of this turn

    def keep_head(self, head: bytes) -> None:
        """Write the head of the response with what of the body comes in this turn of the event loop."""
        self._head = head
        self.server.loop.call_soon(self.release_head)

    def release_head(self) -> None:
        """Write the head if it was not written yet."""
        if self._head:
            head, self._head = self._head, b""
            self.server.write(head)

    def write(self, chunk: Chunk) -> bool:
        """Hand a chunk to the transport now; return False where it holds too much already."""
        if self.closed or self._get_size() > self._limit or self._is_closing():
            return False
        if self._head:
            self._put(self._framed(chunk))
        else:  # written out: every event and subscriber that no native writer serves come by here
            self._put(chunk.chunked if self.chunked else chunk.body)
        return True

    async def send(self, chunk: Chunk) -> None:
        """Hand a chunk over when the transport has room for it; raises Disconnected."""
        if self._get_size() > self._limit or self.server.turn.locked() or self.closed or self._is_closing():
            await self._writable()
        self._put(self._framed(chunk))

    def _framed(self, chunk: Chunk) -> bytes:
        body = chunk.chunked if self.chunked else chunk.body
        if self._head:
            head, self._head = self._head, b""
            return head + body
        return body

    def _new_member(self) -> "Member | None":
        self.release_head()  # the native writer must not overtake it
        return self.server.config.native.Member(self.server.door.socket, 0) if self.chunked else None

    def reset(self) -> None:
        """Reset the connection: it carries no response but this one."""
        drop(self.server)

    def cut(self) -> None:
        """Do the same: where the client takes nothing there is nothing else to save."""
        self.reset()

"""What is written to an HTTP/2 connection in one turn of the event loop, kept so that it leaves as one write."""

import asyncio

from feed.hypercorn_adapter.door import Door

_WRITE = 16 * 1024
"""Bytes that are worth a write of their own."""


class Cork:
    """Keeps frames until the end of the turn of the event loop, or until they are `_WRITE` bytes."""

    __slots__ = ("_closed", "_door", "_loop", "_size", "_transport", "frames")

    def __init__(self, door: Door, transport: asyncio.Transport) -> None:
        self.frames: list[bytes] = []
        """What the transport does not have yet: nothing may overtake it."""
        self._size = 0
        self._closed = False
        self._door = door
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def put(self, frame: bytes) -> None:
        """Keep a frame, which leaves at the end of this turn at the latest."""
        if self._closed:
            return
        if not self.frames:
            self._loop.call_soon(self.release)
            self._door.hold(True)
        self.frames.append(frame)
        self._size += len(frame)
        if self._size > _WRITE:
            self.release()

    def release(self) -> None:
        """Write what was kept; whoever writes past the cork does this first."""
        if self.frames:
            kept, self.frames, self._size = self.frames, [], 0
            self._door.hold(False)
            if not self._transport.is_closing():
                self._door.write(b"".join(kept))

    def close(self) -> None:
        """Write what was kept, and keep nothing more."""
        self.release()
        self._closed = True

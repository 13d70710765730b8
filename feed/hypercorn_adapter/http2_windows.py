"""Waits for the windows of a client: of one stream, or of its whole connection (RFC 9113, 5.2)."""

import asyncio


class Windows:
    """The waits for a window of one connection, at most one for each stream."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def wait(self, stream_id: int) -> None:
        """Wait until the client opens the window of a stream or of all, or the stream ends."""
        waiting = self._waiting[stream_id] = asyncio.get_running_loop().create_future()
        try:
            await waiting
        finally:
            self._waiting.pop(stream_id, None)

    def wake(self, stream_id: int) -> None:
        """End the wait of one stream."""
        waiting = self._waiting.get(stream_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def opened(self, stream_id: int) -> None:
        """A window was opened: a stream's, or with 0 that of the connection, or of all its streams."""
        for one in [stream_id] if stream_id else list(self._waiting):
            self.wake(one)

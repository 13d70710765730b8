"""The heartbeat: one timer that tells every silent live subscriber where the head of the log is."""

import asyncio

from feed.fanout.hub import Hub
from feed.supervision import Backoff, supervised

_LONGEST_TICK = 1.0
"""Seconds between two looks for silent subscribers, at the most."""


class Heartbeat:
    """The timer of one hub, for all of its subscribers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        await supervised("heartbeat", self._beat_for_ever, Backoff(self._hub.heartbeat))

    async def _beat_for_ever(self) -> None:
        tick = min(_LONGEST_TICK, self._hub.heartbeat / 5)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick)
            if self._hub.ready:
                self._hub.beat(loop.time())

"""What the streams of a process are served from."""

from dataclasses import dataclass

from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.replay_blocks import ReplayBlocks


@dataclass(frozen=True, slots=True)
class StreamSources:
    """Live events come from the hub; replays from its ring and from pages of the log, put together in blocks."""

    hub: Hub
    history: History
    blocks: ReplayBlocks
    start_timeout: float
    """Seconds that the database has to say where a stream begins."""

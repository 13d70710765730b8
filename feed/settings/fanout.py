"""The way of an event to its subscribers: hub, replay, streams, and the drain."""

from typing import Annotated

from pydantic import Field

from feed.settings.group import Bytes, Count, Group, Seconds


class HubSettings(Group):
    """The hub, which hands every event to the live subscribers of a process."""

    ring_events: Count = 20_000
    """Newest events that are kept in memory for replays."""
    ring_bytes: Bytes = 32 * 1024 * 1024
    """Bytes that they take at the most: their frames, and what filters read of them."""
    heartbeat: Seconds = 15.0
    """Seconds of silence after which a stream gets a heartbeat."""
    retry_min: Seconds = 2.0
    """Shortest `retry` in seconds; each stream is told a random one."""
    retry_max: Seconds = 5.0
    """Longest `retry` in seconds."""
    retry_busy: Seconds = 15.0
    """Longest `retry` in seconds while the service is full or the database is away."""


class ReplaySettings(Group):
    """Replays from the log."""

    page: Count = Field(default=500, validation_alias="FEED_HISTORY_PAGE")
    """Positions in each page that is read from the log."""
    cache: Bytes = Field(default=32 * 1024 * 1024, validation_alias="FEED_HISTORY_CACHE")
    """Bytes that the pages of the log in memory take, with what filters read of them."""
    reads: Count = Field(default=4, validation_alias="FEED_HISTORY_READS")
    """Pages that are read from the database at the same time."""
    joined_bytes: Bytes = 32 * 1024 * 1024
    """Bytes of replay blocks in memory, which are put together once for all subscribers with the same filter."""


class StreamSettings(Group):
    """Streams, and how many of them there may be."""

    max_streams: Count = 20_000
    """Open streams of a process. Further clients are told to come back."""
    per_address: Count = Field(default=100, validation_alias="FEED_STREAMS_PER_ADDRESS")
    """Open streams of one address in a process. Further ones are told to come back later."""
    subscriber_buffer: Bytes = 256 * 1024
    """Unsent bytes of a subscriber, above which it is served from the log at its own pace."""
    send_timeout: Seconds = 30.0
    """Seconds after which a client that takes no bytes is cut off."""
    max_age: Seconds | None = None
    """Seconds after which a stream ends, give or take a tenth, so that clients spread over new processes."""
    log: bool = Field(default=True, validation_alias="FEED_LOG_STREAMS")
    """Whether the end of each stream is logged in one line."""


class DrainSettings(Group):
    """The drain, which ends all streams before the process stops."""

    window: Seconds = Field(default=5.0, validation_alias="FEED_DRAIN_WINDOW")
    """Seconds over which the ends of streams are spread at the most."""
    rate: Count = Field(default=1_000, validation_alias="FEED_DRAIN_RATE")
    """Streams that are ended in a second, as far as the window allows."""
    deadline: Seconds = Field(default=10.0, validation_alias="FEED_DRAIN_DEADLINE")
    """Seconds after which the streams that are left are cut."""
    requests: Annotated[float, Field(gt=0, lt=3)] = Field(default=2.0, validation_alias="FEED_DRAIN_REQUESTS")
    """Seconds that other requests have after the drain. Hypercorn cancels them after 3."""

"""The hub, replay, subscribers and the drain."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from feed.settings.units import Bytes, Count, Seconds


class FanoutOptions(BaseSettings):
    """The hub, replay, subscribers and the drain."""

    # Hub
    ring_events: Count = 20_000
    """Events kept in memory for replay."""
    ring_bytes: Bytes = 32 * 1024 * 1024
    history_page: Count = 500
    """Positions a page of replay read from the log."""
    history_cache: Bytes = 32 * 1024 * 1024
    """Pages kept in memory, counted as frames."""
    joined_bytes: Bytes = 32 * 1024 * 1024
    """Blocks of replay put together once for all subscribers with the same filter, in memory."""
    history_reads: Count = 4
    """Pages read from the database at the same time."""
    subscriber_buffer: Bytes = 256 * 1024
    """Unsent bytes a subscriber before it is served from the log at its own pace."""
    max_streams: Count = 20_000
    """Open streams a process; more are told to come back."""
    heartbeat: Seconds = 15.0
    send_timeout: Seconds = 30.0
    """A client that does not take a chunk for so long is cut off."""
    retry_min: Seconds = 2.0
    retry_max: Seconds = 5.0
    """Bounds of the jittered `retry`, seconds."""
    retry_busy: Seconds = 15.0
    """Upper bound of `retry` when the service is full or the database is away."""

    # Drain
    drain_window: Seconds = 5.0
    """Ends of streams are spread over at most this."""
    drain_rate: Count = 1_000
    """Streams ended a second, as far as the window allows."""
    drain_deadline: Seconds = 10.0
    """After this the streams that are left are cut."""
    drain_requests: Annotated[float, Field(gt=0, lt=3)] = 2.0
    """Seconds that other requests have after the drain; Hypercorn cancels them after 3."""

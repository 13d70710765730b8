"""The database, and the way of an event inside it."""

import os
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings

from feed.settings.units import Count, Seconds


def _data_dir() -> Path:
    """Where the service's own Postgres lives: the system's place for root, the user's own otherwise."""
    try:
        return Path("/var/lib/jobfeed") if os.geteuid() == 0 else Path(platformdirs.user_data_dir("jobfeed"))
    except RuntimeError:  # a user without a home
        return Path("/var/lib/jobfeed")


class DatabaseOptions(BaseSettings):
    """The database, and the way of an event inside it."""

    # Database
    database_url: Annotated[str | None, Field(validation_alias=AliasChoices("FEED_DATABASE_URL", "DATABASE_URL"))] = (
        None
    )
    """Where the postings are; without it the service runs its own Postgres in `data_dir`."""
    data_dir: Path = Field(default_factory=_data_dir)
    db_schema: str = Field(default="feed", pattern=r"^[a-z_][a-z0-9_]{0,39}$", validation_alias="FEED_SCHEMA")
    """The schema that holds everything of the feed; also the name of its notification channel."""
    pool_size: Count = 8
    """Connections for lists, writes and replay, a process."""
    access_pool_size: Count = 2
    """Connections for keys, revocations, the census and metrics, a process."""
    connect_timeout: Seconds = 5.0
    query_timeout: Seconds = 30.0
    """One statement of a list or a write."""
    reconnect_max: Seconds = 5.0
    """The longest wait between attempts to reach the database (jittered, doubling from 0.1 s)."""

    # Sequencer
    sequencer: bool = True
    """Whether this process may move the inbox to the log (one process at a time does)."""
    sequencer_interval: Seconds = 0.003
    """Between moves while there is work, in seconds."""
    sequencer_interval_busy: Seconds = 0.01
    """The same after a move of `sequencer_busy` rows: a larger batch costs the writers' machine less."""
    sequencer_busy: Count = 30
    sequencer_idle: Seconds = 0.03
    """Without work for so long, the sequencer arms the doorbell."""
    sequencer_poll_min: Seconds = 0.02
    sequencer_poll_max: Seconds = 0.25
    """Between looks at the inbox while older writers may not have seen the armed doorbell."""
    sequencer_batch: Count = 5_000
    """Positions moved in one transaction."""
    sequencer_lease: Seconds = 10.0
    """A leader that is silent for so long is ended by the server and another takes over."""
    leader_retry: Seconds = 1.0
    """Between a follower's attempts to become the leader."""
    doorbell: bool = True
    """Off: never ask writers to NOTIFY, only poll (for writers that PREPARE TRANSACTION)."""

    # Tailer
    tail_poll: Seconds = 1.0
    """The poll behind the doorbell, and the liveness check of the listener."""
    tail_timeout: Seconds = 3.0
    """A listener that does not answer for so long is given up."""
    tail_page: Count = 2_000
    """Events read from the log at once."""

    publish_events: Count = 200
    """Events handed to all subscribers in one turn of the event loop."""

    # Log
    retention: Seconds = 7 * 86_400.0
    """Age at which events leave the log, in seconds."""
    retention_events: Count | None = None
    """Events kept at the most; None: only age counts."""
    log_partition: Count = 250_000
    """Positions a partition of the log."""
    log_partitions_ahead: Count = 2
    housekeeping: Seconds = 60.0
    """Between rounds of retention, seconds."""
    expiry_interval: Seconds = 5.0
    """Between looks for postings past `valid_through`, seconds."""

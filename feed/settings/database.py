"""How to reach the database."""

import os
from pathlib import Path

import platformdirs
from pydantic import AliasChoices, Field

from feed.settings.group import Count, Group, Seconds


def _data_dir() -> Path:
    """The folder for the embedded Postgres: the system's place for root, the user's own otherwise."""
    try:
        return Path("/var/lib/jobfeed") if os.geteuid() == 0 else Path(platformdirs.user_data_dir("jobfeed"))
    except RuntimeError:  # a user without a home folder
        return Path("/var/lib/jobfeed")


class DatabaseSettings(Group):
    """How to reach the database."""

    url: str | None = Field(default=None, validation_alias=AliasChoices("FEED_DATABASE_URL", "DATABASE_URL"))
    """The database that holds the postings. Without it the service runs an embedded Postgres in `FEED_DATA_DIR`."""
    data_dir: Path = Field(default_factory=_data_dir)
    """The folder of the embedded Postgres."""
    schema_name: str = Field(default="feed", pattern=r"^[a-z_][a-z0-9_]{0,39}$", validation_alias="FEED_SCHEMA")
    """The schema that holds everything of the feed. It is also the name of the notification channel."""
    pool_size: Count = 8
    """Connections for lists, writes and replays, for each process."""
    access_pool_size: Count = 2
    """Connections for keys, revocations, presence and metrics, for each process."""
    connect_timeout: Seconds = 5.0
    """Seconds that one attempt to connect may take."""
    query_timeout: Seconds = 30.0
    """Seconds that one statement of a list or a write may take."""
    reconnect_max: Seconds = 5.0
    """Longest wait in seconds between attempts to reach the database. Waits are jittered and double from 0.1 s."""

"""How public boards are fetched: how often, how many at once, and within which bounds."""

from pathlib import Path

from pydantic import Field

from feed.settings.group import Bytes, Count, Group, Seconds
from feed.settings.limits import Networks


class IngestSettings(Group):
    """The sources that `feed source add` makes known. One process at a time fetches them, the one that is the sequencer."""

    enabled: bool = Field(default=True, validation_alias="FEED_INGEST")
    """Whether this process may fetch sources."""
    concurrency: Count = Field(default=8, validation_alias="FEED_INGEST_CONCURRENCY")
    """Sources that are fetched at once, and requests that are under way at once. Each may hold `FEED_INGEST_MAX_BYTES`."""
    poll: Seconds = Field(default=5.0, validation_alias="FEED_INGEST_POLL")
    """Longest wait in seconds until a source that was added, resumed or accepted is fetched."""
    interval: Seconds = Field(default=900.0, validation_alias="FEED_INGEST_INTERVAL")
    """Seconds between two fetches of a source that changes, give or take a tenth, unless its terms ask for more."""
    interval_max: Seconds = Field(default=21_600.0, validation_alias="FEED_INGEST_INTERVAL_MAX")
    """Seconds up to which that interval doubles while a source does not change, or fails."""
    gap: Seconds = Field(default=1.0, validation_alias="FEED_INGEST_GAP")
    """Seconds between two requests to one host, unless the source asks for more."""
    connect_timeout: Seconds = Field(default=10.0, validation_alias="FEED_INGEST_CONNECT_TIMEOUT")
    """Seconds that connecting to a host may take."""
    read_timeout: Seconds = Field(default=30.0, validation_alias="FEED_INGEST_READ_TIMEOUT")
    """Seconds for which a host may be silent within an answer."""
    timeout: Seconds = Field(default=60.0, validation_alias="FEED_INGEST_TIMEOUT")
    """Seconds that one request may take in whole."""
    run_timeout: Seconds = Field(default=900.0, validation_alias="FEED_INGEST_RUN_TIMEOUT")
    """Seconds that fetching a source and writing what changed may take in whole."""
    retries: int = Field(default=2, ge=0, validation_alias="FEED_INGEST_RETRIES")
    """Further attempts at a request that failed for a reason that may pass."""
    backoff: Seconds = Field(default=2.0, validation_alias="FEED_INGEST_BACKOFF")
    """Seconds before the second attempt. They double, and each is jittered by a half."""
    max_bytes: Bytes = Field(default=64 * 1024 * 1024, validation_alias="FEED_INGEST_MAX_BYTES")
    """Bytes of an answer at the most, decompressed."""
    robots_age: Seconds = Field(default=3_600.0, validation_alias="FEED_INGEST_ROBOTS_AGE")
    """Seconds for which a host's robots.txt is believed."""
    rolling_age: Seconds = Field(default=30 * 86_400.0, validation_alias="FEED_INGEST_ROLLING_AGE")
    """Seconds after which a posting closes that has left the list of a source which only lists the newest."""
    page_checks: int = Field(default=5, ge=0, validation_alias="FEED_INGEST_PAGE_CHECKS")
    """Pages of such postings that are asked for in each run, to learn whether they are gone."""
    allow_http: bool = Field(default=False, validation_alias="FEED_INGEST_ALLOW_HTTP")
    """Whether sources may be fetched without TLS."""
    allow_networks: Networks = Field(default=(), validation_alias="FEED_INGEST_ALLOW_NETWORKS")
    """Private networks, separated by commas, from which sources may be fetched all the same."""
    ca_file: Path | None = Field(default=None, validation_alias="FEED_INGEST_CA_FILE")
    """A file of certificates (PEM) that sources may be signed by, besides those that everybody trusts."""
    contact: str = Field(
        default="https://pypi.org/project/jobfeed/", pattern=r"^[!-~]+$", validation_alias="FEED_INGEST_CONTACT"
    )
    """Where those who run a board learn who fetches it: an URL, or `mailto:` and an address. Part of the User-Agent."""

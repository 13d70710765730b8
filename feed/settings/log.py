"""The log of events: how it is sequenced, followed and pruned."""

from pydantic import Field

from feed.settings.group import Count, Group, Seconds


class SequencerSettings(Group):
    """The sequencer, which moves committed changes from the inbox to the log."""

    enabled: bool = Field(default=True, validation_alias="FEED_SEQUENCER")
    """Whether this process may become the sequencer. One process at a time is."""
    interval: Seconds = Field(default=0.003, validation_alias="FEED_SEQUENCER_INTERVAL")
    """Seconds between moves while there is work."""
    interval_busy: Seconds = Field(default=0.01, validation_alias="FEED_SEQUENCER_INTERVAL_BUSY")
    """Seconds to the next move after a move of `FEED_SEQUENCER_BUSY` rows: larger batches cost the database less."""
    busy: Count = Field(default=30, validation_alias="FEED_SEQUENCER_BUSY")
    """Rows in one move from which on the longer interval applies."""
    idle: Seconds = Field(default=0.03, validation_alias="FEED_SEQUENCER_IDLE")
    """Seconds without work after which the sequencer arms the doorbell and sleeps."""
    poll_min: Seconds = Field(default=0.02, validation_alias="FEED_SEQUENCER_POLL_MIN")
    """Shortest wait in seconds between looks at the inbox while writers may not have seen the armed doorbell."""
    poll_max: Seconds = Field(default=0.25, validation_alias="FEED_SEQUENCER_POLL_MAX")
    """Longest wait in seconds between these looks."""
    batch: Count = Field(default=5_000, validation_alias="FEED_SEQUENCER_BATCH")
    """Positions that are given in one transaction at the most."""
    lease: Seconds = Field(default=10.0, validation_alias="FEED_SEQUENCER_LEASE")
    """Seconds of silence after which the server ends a leader, and another process takes over."""
    leader_retry: Seconds = 1.0
    """Seconds between the attempts of other processes to become the leader."""
    doorbell: bool = True
    """Whether writers are asked to NOTIFY. Turn it off for writers that PREPARE TRANSACTION: the inbox is then polled."""


class TailerSettings(Group):
    """The tailer, which follows the log for one process."""

    poll: Seconds = Field(default=1.0, validation_alias="FEED_TAIL_POLL")
    """Seconds between reads without a notification; each also checks that the listener's connection is alive."""
    timeout: Seconds = Field(default=3.0, validation_alias="FEED_TAIL_TIMEOUT")
    """Seconds after which a listener that does not answer is given up."""
    page: Count = Field(default=2_000, validation_alias="FEED_TAIL_PAGE")
    """Events read from the log at once."""
    publish_events: Count = 200
    """Events handed to all subscribers in one turn of the event loop."""


class LogSettings(Group):
    """How long the log is kept, and how it is laid out."""

    retention: Seconds = 7 * 86_400.0
    """Age in seconds at which events leave the log."""
    retention_events: Count | None = None
    """Events kept at the most. Unless given, only their age counts."""
    partition: Count = Field(default=250_000, validation_alias="FEED_LOG_PARTITION")
    """Positions in each partition of the log."""
    partitions_ahead: Count = Field(default=2, validation_alias="FEED_LOG_PARTITIONS_AHEAD")
    """Empty partitions that are kept ready."""
    housekeeping: Seconds = 60.0
    """Seconds between rounds of retention."""
    expiry_interval: Seconds = 5.0
    """Seconds between looks for postings past `valid_through`."""

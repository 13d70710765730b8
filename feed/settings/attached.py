"""Attached tables: tables of others whose rows are postings."""

from pydantic import Field

from feed.settings.group import Group, Seconds


class AttachedSettings(Group):
    """Attached tables."""

    compare_every: Seconds = Field(default=3_600.0, validation_alias="FEED_ATTACHED_COMPARE_EVERY")
    """Seconds after which a table is compared with its postings although nothing speaks for it: whoever bypasses triggers
    (`session_replication_role = replica`, logical replication) is found by that."""

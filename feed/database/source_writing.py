"""What happens in the transaction that writes postings of a source, besides.

It first locks the source's row and checks the claim, so nothing is written for a source that was removed, or whose run was
taken over. What is remembered of the postings is written with them, so both are always in step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from feed.database.jobs import Connection, Written
from feed.errors import FeedError
from feed.model.source import Counts
from feed.model.source_run import Claim, Remembered

_GUARD = "SELECT FROM source WHERE name = $1 AND claim = $2 FOR NO KEY UPDATE"
_REMEMBER = """
INSERT INTO source_posting AS p (source, external_id, digest, expires_at)
SELECT $1, g.external_id, g.digest, g.expires_at
  FROM unnest($2::text[], $3::bytea[], $4::timestamptz[]) AS g(external_id, digest, expires_at)
ON CONFLICT (source, external_id) DO UPDATE SET digest = excluded.digest, expires_at = excluded.expires_at, missed = 0,
  missed_at = NULL, gone = 0
"""
_COUNT = "UPDATE source SET posted = posted + $2, updated = updated + $3, closed = closed + $4 WHERE name = $1"


class Superseded(FeedError):
    """The source of a run was removed, or its run was taken over by another one: it must write nothing more."""


@dataclass(frozen=True, slots=True)
class Remembering:
    """What the transaction that writes postings of a source does besides: it checks the claim, remembers them and counts."""

    claim: Claim
    remembered: Sequence[Remembered]
    are_new: bool
    """Whether the postings were not open as far as we know."""
    backfill: bool
    """Whether the events of new postings say that they are no news."""

    async def before(self, connection: Connection) -> None:
        """Check the claim and remember the postings; raises Superseded."""
        await guard(connection, self.claim)
        if self.backfill:
            await connection.execute("SELECT set_config('feed.backfill', 'on', true)")
        await connection.execute(
            _REMEMBER, self.claim.name, [one.external_id for one in self.remembered],
            [one.digest for one in self.remembered], [one.expires_at for one in self.remembered],
        )  # fmt: skip

    async def after(self, connection: Connection, written: Written) -> None:
        """Count what was written."""
        await count(connection, self.claim, self.changes(written))

    def changes(self, written: Written) -> Counts:
        """Return what a write changed, in the words of a source: a posting that opens again was posted."""
        changed = written.created + written.updated
        return Counts(posted=changed) if self.are_new else Counts(updated=changed)


async def guard(connection: Connection, claim: Claim) -> None:
    """Lock the source's row against its removal; raises Superseded."""
    if await connection.fetchrow(_GUARD, claim.name, claim.token) is None:
        raise Superseded(f"the source {claim.name} was removed, or another process runs it")


async def count(connection: Connection, claim: Claim, changes: Counts) -> None:
    """Add to what was changed since the source was added."""
    await connection.execute(_COUNT, claim.name, changes.posted, changes.updated, changes.closed)

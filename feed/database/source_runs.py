"""What a run of a source reads and writes: its claim, the state of its postings, and how it ended.

A run writes its postings through `JobStore`, and in the same transactions what it remembers of each (`Remembering`). So a
run that is cut off anywhere leaves both in step, and the next run goes on from there.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from feed.database.connect import translated
from feed.database.jobs import Connection
from feed.database.source_writing import count as add_up
from feed.database.source_writing import guard
from feed.database.sources import COLUMNS, faults_json, source_of
from feed.model.source import Counts, Source
from feed.model.source_run import Claim, Ended, Listed, Unseen, Validators

CHUNK = 500
"""Postings that one transaction closes or marks."""

# One source a host: among all processes, those of one host are fetched one after the other. The longest overdue go first.
_CLAIM = f"""
WITH due AS (
  SELECT DISTINCT ON (d.host) d.name, d.next_at FROM source d
   WHERE d.paused_at IS NULL AND d.next_at <= coalesce($3, clock_timestamp()) AND NOT EXISTS (
         SELECT FROM source b WHERE b.host = d.host AND b.claimed_until > clock_timestamp())
   ORDER BY d.host, d.next_at, d.name),
chosen AS (SELECT due.name, due.next_at FROM due ORDER BY due.next_at, due.name LIMIT $1),
claimed AS (
  UPDATE source s SET claim = gen_random_uuid(), claimed_until = clock_timestamp() + make_interval(secs => $2)
    FROM chosen c WHERE s.name = c.name
  RETURNING {COLUMNS}, s.claim, s.validated_url, s.etag, s.last_modified, s.digest, s.validated_by, c.next_at AS due_at)
SELECT * FROM claimed ORDER BY due_at, name
"""
_RENEW = """
UPDATE source SET claimed_until = clock_timestamp() + make_interval(secs => $2) WHERE claim = ANY ($1::uuid[])
"""
_NEXT_DUE = """
SELECT extract(epoch FROM min(greatest(s.next_at, s.claimed_until)) - clock_timestamp())::float8
  FROM source s WHERE s.paused_at IS NULL
"""
_KNOWN = """
SELECT p.external_id, p.digest, p.expires_at, p.missed FROM source_posting p WHERE p.source = $1
"""
_MARK = """
UPDATE source_posting p SET missed = $3::smallint, gone = CASE WHEN $3 = 0::smallint THEN 0 ELSE p.gone END,
       missed_at = CASE WHEN $3 <> 0::smallint THEN coalesce(p.missed_at, clock_timestamp()) END
 WHERE p.source = $1 AND p.external_id = ANY ($2::text[])
"""
_CLOSE = """
UPDATE job SET closed_at = clock_timestamp() WHERE source = $1 AND external_id = ANY ($2::text[]) AND closed_at IS NULL
"""
_FORGET = "DELETE FROM source_posting p WHERE p.source = $1 AND p.external_id = ANY ($2::text[])"
_OUTDATED = """
SELECT p.external_id FROM source_posting p
 WHERE p.source = $1 AND p.missed <> 0
   AND (p.expires_at < clock_timestamp() OR p.missed_at < clock_timestamp() - make_interval(secs => $2))
"""
_UNSEEN = """
SELECT p.external_id, j.url, p.gone FROM source_posting p JOIN job j USING (source, external_id)
 WHERE p.source = $1 AND p.missed <> 0 AND j.closed_at IS NULL
   AND (p.looked_at IS NULL OR p.looked_at < clock_timestamp() - make_interval(secs => $2))
 ORDER BY p.looked_at NULLS FIRST, p.external_id LIMIT $3
"""
_LOOKED = """
UPDATE source_posting p SET looked_at = clock_timestamp(),
       gone = CASE WHEN $3::boolean THEN p.gone + 1 WHEN NOT $3 THEN 0 ELSE p.gone END
 WHERE p.source = $1 AND p.external_id = $2
"""
_RELEASE = "UPDATE source SET claim = NULL, claimed_until = NULL WHERE name = $1 AND claim = $2"
# What another hand set to `now` while the run went on (accept, resume) stays: the next run is due at once.
_FINISH = """
UPDATE source s SET claim = NULL, claimed_until = NULL, tried_at = clock_timestamp(), wait = $3,
       next_at = CASE WHEN s.next_at = $5 THEN clock_timestamp() + make_interval(secs => $4::float8) ELSE s.next_at END,
       failures = CASE WHEN $6::text IS NULL THEN 0 ELSE s.failures + 1 END, error = $6,
       succeeded_at = CASE WHEN $6::text IS NULL AND $7::boolean THEN clock_timestamp() ELSE s.succeeded_at END,
       changed_at = CASE WHEN $8::bigint + $9::bigint + $10::bigint > 0 THEN clock_timestamp() ELSE s.changed_at END,
       last_change = CASE WHEN $8::bigint + $9::bigint + $10::bigint > 0 THEN ARRAY[$8, $9, $10]::integer[]
                     ELSE s.last_change END,
       attribution = $11, min_interval = $12, syndicate = $13,
       open = (SELECT count(*) FROM source_posting p WHERE p.source = s.name)
 WHERE s.name = $1 AND s.claim = $2
"""
_LISTED = """
UPDATE source s SET suspect = $3,
       suspect_at = CASE WHEN $3::text IS NOT NULL THEN coalesce(s.suspect_at, clock_timestamp()) END,
       accepted = s.accepted AND NOT $4, company = $5, counts = $6::integer[], empty_runs = $7, empty_at = $8,
       found = $9, bad = $10, faults = $11::json,
       validated_url = $12, etag = $13, last_modified = $14, digest = $15, validated_by = $16
 WHERE s.name = $1 AND s.claim = $2
"""


@dataclass(frozen=True, slots=True)
class Known:
    """One posting of a source that is open as far as we know."""

    digest: bytes
    expires_at: datetime | None
    missed: int
    """0: it was in the newest complete list. 1: it was not. -1: it was not in the newest one, which is suspect."""


class SourceRuns:
    """What runs read and write. Every call raises DatabaseUnavailable while Postgres is away."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def next_due(self) -> float | None:
        """Return the seconds until a source is due (none or fewer: one is); None where there is nothing to run."""
        with translated():
            seconds: float | None = await self._pool.fetchval(_NEXT_DUE)
        return seconds

    async def claim(self, most: int, lease: float, due: datetime | None = None) -> list[Claim]:
        """Take up to `most` sources that are due, one a host, for `lease` seconds, in which no other process will.

        With `due`, these are sources that were due by then.
        """
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtext('feed source claim'), hashtext(current_schema()))"
                )
                return [_claim_of(row) for row in await connection.fetch(_CLAIM, most, lease, due)]

    async def renew(self, claims: Sequence[Claim], lease: float) -> None:
        """Keep claims for another `lease` seconds; those that others have taken over stay theirs."""
        with translated():
            await self._pool.execute(_RENEW, [claim.token for claim in claims], lease)

    async def now(self) -> datetime:
        """Return the time by the database's clock."""
        with translated():
            time: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        return time

    async def release(self, claim: Claim) -> None:
        """Give a run up in the middle: it is due again at once."""
        with translated():
            await self._pool.execute(_RELEASE, claim.name, claim.token)

    async def known(self, claim: Claim | Source) -> dict[str, Known]:
        """Return the postings of a source that are open as far as we know, by their external ids."""
        with translated():
            rows = await self._pool.fetch(_KNOWN, claim.name)
        return {row["external_id"]: Known(row["digest"], row["expires_at"], row["missed"]) for row in rows}

    async def distrust(self, claim: Claim) -> None:
        """Forget what tells that a list has not changed, before another one is applied, which may be cut off.

        Raises Superseded.
        """
        async with self._guarded(claim) as connection:
            await connection.execute("UPDATE source SET validated_url = NULL WHERE name = $1", claim.name)

    async def mark(self, claim: Claim, external_ids: Sequence[str], missed: int) -> None:
        """Note of postings whether the newest list had them (see `Known.missed`); raises Superseded."""
        for begin in range(0, len(external_ids), CHUNK):
            async with self._guarded(claim) as connection:
                await connection.execute(_MARK, claim.name, external_ids[begin : begin + CHUNK], missed)

    async def close(self, claim: Claim, external_ids: Sequence[str], reason: str | None = None) -> int:
        """Close postings and forget them; return how many of them were open. Raises Superseded.

        `reason` is that of their events; None: `closed`.
        """
        closed = 0
        for begin in range(0, len(external_ids), CHUNK):
            chunk = external_ids[begin : begin + CHUNK]
            async with self._guarded(claim) as connection:
                if reason is not None:
                    await connection.execute("SELECT set_config('feed.reason', $1, true)", reason)
                count = int((await connection.execute(_CLOSE, claim.name, chunk)).split()[-1])
                await connection.execute(_FORGET, claim.name, chunk)
                await add_up(connection, claim, Counts(closed=count))
            closed += count
        return closed

    async def outdated(self, claim: Claim, age: float) -> list[str]:
        """Return the postings that are not listed any more, and have expired or were last listed `age` seconds ago."""
        with translated():
            return [row["external_id"] for row in await self._pool.fetch(_OUTDATED, claim.name, age)]

    async def unseen(self, claim: Claim, pause: float, most: int) -> list[Unseen]:
        """Return postings that are not listed any more and whose pages were not asked for in the last `pause` seconds."""
        with translated():
            return [Unseen(*row) for row in await self._pool.fetch(_UNSEEN, claim.name, pause, most)]

    async def looked(self, claim: Claim, external_id: str, *, gone: bool | None) -> None:
        """Note whether a posting's page is gone (None: its host did not tell); raises Superseded."""
        async with self._guarded(claim) as connection:
            await connection.execute(_LOOKED, claim.name, external_id, gone)

    async def finish(self, claim: Claim, ended: Ended) -> None:
        """Note how a run ended and give its claim back; without effect where it was taken over."""
        changes, listed = ended.changes, ended.listed
        succeeded = listed is None or listed.suspect is None
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                if listed is not None:
                    await connection.execute(_LISTED, claim.name, claim.token, *_columns_of(listed))
                await connection.execute(
                    _FINISH, claim.name, claim.token, ended.wait, ended.delay, claim.source.next_at, ended.error, succeeded,
                    changes.posted, changes.updated, changes.closed, ended.attribution, ended.min_interval, ended.syndicate,
                )  # fmt: skip

    @asynccontextmanager
    async def _guarded(self, claim: Claim) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection, claim)
                yield connection


def _columns_of(listed: Listed) -> tuple[object, ...]:
    validators = listed.validators
    kept: tuple[object, ...] = (None,) * 5
    if validators is not None:
        kept = (validators.url, validators.etag, validators.last_modified, validators.digest, validators.version)
    return (
        listed.suspect, listed.used_acceptance, listed.company, list(listed.counts), listed.empty_runs, listed.empty_at,
        listed.found, listed.bad, faults_json(listed.faults), *kept,
    )  # fmt: skip


def _claim_of(row: asyncpg.Record) -> Claim:
    validators = None
    if row["validated_url"] is not None:
        names = ("validated_url", "etag", "last_modified", "digest", "validated_by")
        validators = Validators(*(row[name] for name in names))
    return Claim(source_of(row), row["claim"], validators)

"""The access store: keys, tickets, revocations and the secret of sessions, in Postgres."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from feed.access.grant import Scope
from feed.access.key import Key
from feed.access.keys import KeyRecord
from feed.access.revocations import Revocation
from feed.access.tickets import TicketRecord, Use
from feed.database.connect import translated
from feed.errors import Fault, Invalid, NotFound

_KEY = (
    "SELECT k.id, k.digest, k.scope, k.filter, k.max_streams, k.note, "
    "extract(epoch FROM k.created_at)::float8 AS created_at, "
    "extract(epoch FROM k.expires_at)::float8 AS expires_at, extract(epoch FROM k.revoked_at)::float8 AS revoked_at "
    "FROM api_key k"
)

_TICKET = """
SELECT t.holder, t.filter, extract(epoch FROM t.resume_until)::float8 AS resume_until, t.address, t.position
  FROM ticket t WHERE t.digest = $1 AND coalesce(t.resume_until, t.expires_at) > clock_timestamp()
"""
# One statement decides which of two clients that come at the same time uses the ticket.
_REDEEM = """
UPDATE ticket t SET redeemed_at = clock_timestamp(), address = $2, position = $3,
       resume_until = clock_timestamp() + make_interval(secs => $4)
 WHERE t.digest = $1 AND t.redeemed_at IS NULL AND t.expires_at > clock_timestamp()
RETURNING t.redeemed_at
"""
_GIVE_BACK = """
UPDATE ticket t SET redeemed_at = NULL, address = NULL, position = NULL, resume_until = NULL,
       expires_at = greatest(t.expires_at, clock_timestamp() + make_interval(secs => $3))
 WHERE t.digest = $1 AND t.redeemed_at IS NOT DISTINCT FROM $2::timestamptz
"""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was read: the revocations, and the database's time (Unix, seconds) at which they were."""

    found: list[Revocation]
    at: float


class AccessStore:
    """Everything about access that outlives a process. Every call raises DatabaseUnavailable while Postgres is away."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def key(self, identity: str) -> KeyRecord | None:
        """The key of that id, revoked or not."""
        with translated():
            row = await self._pool.fetchrow(f"{_KEY} WHERE k.id = $1", identity)
        return None if row is None else _record(row)

    async def keys(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        with translated():
            return [_record(row) for row in await self._pool.fetch(f"{_KEY} ORDER BY k.created_at, k.id")]

    async def add_key(
        self, key: Key, scope: Scope, *, wanted: str = "", seconds: float | None = None, max_streams: int | None = None,
        note: str = "",
    ) -> None:  # fmt: skip
        """Keep a new key's digest; it expires after `seconds`."""
        with translated():
            try:
                await self._pool.execute(
                    "INSERT INTO api_key (id, digest, scope, filter, max_streams, note, expires_at) "
                    "VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7))",
                    key.id, key.digest, scope, wanted, max_streams, note, seconds,
                )  # fmt: skip
            except asyncpg.DataError as error:
                raise Invalid([Fault("expires", str(error))]) from None

    async def revoke_key(self, identity: str) -> None:
        """End a key, everywhere; raises NotFound."""
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                found = await connection.fetchval(
                    "UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1 RETURNING id",
                    identity,
                )
                if found is None:
                    raise NotFound(f"there is no key {identity}: `feed key list` shows them")
                await connection.execute(
                    "INSERT INTO revocation (kind, subject, until) VALUES ('key', $1, clock_timestamp() + interval '1 day')",
                    identity,
                )

    async def revoke(self, kind: str, subject: str, seconds: float | None = None) -> None:
        """Let every process hear that something has ended; it can be forgotten after `seconds`."""
        with translated():
            await self._pool.execute(
                "INSERT INTO revocation (kind, subject, until) "
                "SELECT $1, $2, coalesce(clock_timestamp() + make_interval(secs => $3), 'infinity') "
                "WHERE $1 <> 'session' OR NOT EXISTS "
                "(SELECT FROM revocation r WHERE r.kind = $1 AND r.subject = $2 AND r.until > clock_timestamp())",
                kind, subject, seconds,
            )  # fmt: skip

    async def revocations(self, since: float | None) -> Revoked:
        """What is in force of the revocations made after `since` (Unix time); None: of all."""
        with translated():
            rows = await self._pool.fetch(
                "SELECT r.id, r.kind, r.subject, extract(epoch FROM r.at)::float8 AS at, "
                "extract(epoch FROM nullif(r.until, 'infinity'))::float8 AS until, extract(epoch FROM n.at)::float8 AS now "
                "FROM (SELECT clock_timestamp() AS at) n LEFT JOIN revocation r "
                "ON r.until > n.at AND r.at > coalesce(to_timestamp($1), '-infinity') ORDER BY r.id",
                since,
            )
        found = [
            Revocation(row["id"], row["kind"], row["subject"], row["at"], row["until"])
            for row in rows
            if row["id"] is not None
        ]
        return Revoked(found, rows[0]["now"])

    async def add_ticket(self, digest: bytes, holder: dict[str, Any], wanted: str, age: float) -> None:
        """Keep a ticket that may be used within `age` seconds."""
        with translated():
            await self._pool.execute(
                "INSERT INTO ticket (digest, holder, filter, expires_at) "
                "VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))",
                digest, orjson.dumps(holder).decode(), wanted, age,
            )  # fmt: skip

    async def ticket(self, digest: bytes) -> TicketRecord | None:
        """Return a ticket that may still be used, or whose stream may still come back; None for any other."""
        with translated():
            row = await self._pool.fetchrow(_TICKET, digest)
        if row is None:
            return None
        used = row["resume_until"] is not None
        use = Use(row["resume_until"], row["address"], row["position"]) if used else None
        return TicketRecord(orjson.loads(row["holder"]), row["filter"], use)

    async def redeem(self, digest: bytes, address: str, position: int, resume: float) -> datetime | None:
        """Use a ticket for the first time and return when that was; None if it was used before, or is too old."""
        with translated():
            redeemed_at: datetime | None = await self._pool.fetchval(_REDEEM, digest, address, position, resume)
        return redeemed_at

    async def give_back(self, digest: bytes, redeemed_at: datetime | None, age: float) -> None:
        """Make a ticket good for a first use within `age` seconds, unless it was used by another than `redeemed_at`."""
        with translated():
            await self._pool.execute(_GIVE_BACK, digest, redeemed_at, age)

    async def secret(self) -> bytes:
        """What signs sessions."""
        with translated():
            return bytes(await self._pool.fetchval("SELECT s.session FROM secret s"))


def _record(row: Any) -> KeyRecord:
    return KeyRecord(
        row["id"], bytes(row["digest"]), Scope(row["scope"]), row["filter"], row["max_streams"], row["note"],
        row["created_at"], row["expires_at"], row["revoked_at"],
    )  # fmt: skip


async def forget_expired(connection: Any) -> None:
    """Delete the tickets and revocations that matter no more."""
    await connection.execute("DELETE FROM ticket WHERE coalesce(resume_until, expires_at) < clock_timestamp()")
    await connection.execute("DELETE FROM revocation WHERE until < clock_timestamp()")

"""The job store: postings are written, closed, read and listed."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import asyncpg
import orjson

from feed.database.conditions import conditions
from feed.database.connect import pool, translated
from feed.database.listing import COLUMNS
from feed.database.lists import Listing, Lists
from feed.database.refusals import REFUSALS, fault_of, write_some
from feed.errors import DatabaseUnavailable, Fault, Invalid, NotFound
from feed.model.filter import EVERYTHING, Filter
from feed.model.html import sanitised, text_of
from feed.model.page import Page
from feed.model.posting import FIELDS, PostingIn
from feed.observability.traces import NO_TRACES, Traces
from feed.settings.settings import load_settings

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_ATTEMPTS = 5
"""Transactions that one write may take, if other writes get in its way."""
_WHOLE = (
    "SELECT j.id, row_to_json(x)::text AS posting, j.description, j.description_html FROM job j "
    f"CROSS JOIN LATERAL (SELECT {COLUMNS}, '/v1/jobs/' || j.id AS href) x"
)
_SET_HERE = ("id", "version", "updated_at")
_WRITTEN = [*(name for name in FIELDS if name not in _SET_HERE), "description", "description_html"]
_CHANGING = [name for name in _WRITTEN if name not in ("source", "external_id")]

_GIVEN = """
given AS (
  SELECT * FROM ROWS FROM (json_to_recordset($1::json) AS (
    source text, external_id text, title text, company text, url text, location text, country text, workplace text,
    employment_type text, seniority text, tags text[], salary_min numeric, salary_max numeric, currency text,
    salary_period text, latitude double precision, longitude double precision, posted_at timestamptz,
    valid_through timestamptz, closed_at timestamptz, description text, description_html text,
    closed_given boolean)) WITH ORDINALITY)
"""

# A write is two statements: what is not there yet, then what is there and differs. The second sees what others committed
# while the first waited for them; what the write leaves unsaid (posted_at, closed_at) stays as it is in the newest version
# of the row. An equal row is left alone and makes no event.
_INSERT_GIVEN = f"""
INSERT INTO job ({", ".join(_WRITTEN)})
SELECT {", ".join("coalesce(g.posted_at, clock_timestamp())" if name == "posted_at" else f"g.{name}" for name in _WRITTEN)}
  FROM given g ORDER BY g.ordinality
ON CONFLICT (source, external_id) DO NOTHING RETURNING
"""
_INSERT = f"WITH {_GIVEN} {_INSERT_GIVEN} id"
_INSERT_AND_READ = f"WITH {_GIVEN}, job AS ({_INSERT_GIVEN} *) {_WHOLE}"
"""The insert of one posting, and the posting as it is now: one round trip, and a transaction of its own."""
_NEW = {
    "posted_at": "coalesce(g.posted_at, j.posted_at)",
    "closed_at": "CASE WHEN g.closed_given THEN g.closed_at ELSE j.closed_at END",
}
_UPDATE = f"""
WITH {_GIVEN}
UPDATE job j SET {", ".join(f"{name} = {_NEW.get(name, f'g.{name}')}" for name in _CHANGING)}
  FROM given g WHERE j.source = g.source AND j.external_id = g.external_id
   AND ({", ".join(f"j.{name}" for name in _CHANGING)})
       IS DISTINCT FROM ({", ".join(_NEW.get(name, f"g.{name}") for name in _CHANGING)})
RETURNING j.id
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Postings on their way into one statement."""

    rows: int
    json: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the postings of a write."""

    created: int
    updated: int
    unchanged: int
    refused: tuple[Fault, ...] = ()
    """What the database refused and was left out; `index` counts the postings of all batches, from 0."""


class Alongside(Protocol):
    """What else happens in the transaction that writes postings."""

    async def before(self, connection: Connection) -> None:
        """Run the first statements of the transaction."""

    async def after(self, connection: Connection, written: Written) -> None:
        """Run its last statements."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One posting after it was written."""

    id: int
    created: bool
    """Whether the write made it; otherwise it was there before."""
    json: bytes
    """The posting with its description."""


class _Deleted(Exception):
    """Somebody deleted a posting while it was being written."""


class JobStore:
    """Postings in Postgres. Every call raises DatabaseUnavailable while that is away."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", traces: Traces = NO_TRACES) -> None:
        self._pool = pool
        self._lists = Lists(pool)
        self._traces = traces

    async def write(self, postings: Sequence[PostingIn]) -> Written:
        """Write all or nothing; idempotent on source + external_id."""
        keys = [posting.key for posting in postings if posting.key is not None]
        if len(keys) != len(set(keys)):
            raise Invalid([Fault("external_id", "the same source and external_id occur twice in one write")])
        return await self.write_batches([batch_of(postings)])

    async def write_batches(
        self, batches: Iterable[Batch], alongside: Alongside | None = None, *, skip: bool = False
    ) -> Written:
        """Write all in one transaction, with what `alongside` does in it.

        Both are done again for every further attempt; `batches` is iterated again then. With `skip`, up to a hundred
        postings that the database refuses are left out; otherwise one of them refuses all.
        """

        async def write(connection: Connection) -> Written:
            if alongside is not None:
                await alongside.before(connection)

            async def upsert(rows: str) -> tuple[int, int]:
                created = len(await connection.fetch(_INSERT, rows))
                return created, len(await connection.fetch(_UPDATE, rows))

            refused: list[Fault] = []
            created = updated = total = size = 0
            for batch in batches:
                if skip:
                    new, changed = await write_some(connection, batch.json, upsert, refused, total)
                else:
                    new, changed = await upsert(batch.json)
                created += new
                updated += changed
                total += batch.rows
                size += len(batch.json)
            span.update({"count": total, "bytes": size})
            written = Written(created, updated, total - created - updated - len(refused), tuple(refused))
            if alongside is not None:
                await alongside.after(connection, written)
            return written

        with self._traced() as span, translated(), _refusals():
            return await self._transaction(write)

    async def put(self, posting: PostingIn) -> Stored:
        """Write one posting and return it as it is now."""
        batch = batch_of([posting]).json

        async def write(connection: Connection) -> Stored:
            row = await connection.fetchrow(_INSERT_AND_READ, batch)
            created = row is not None
            if row is None:
                async with connection.transaction():
                    await connection.execute(_UPDATE, batch)
                    key = posting.source, posting.external_id
                    row = await connection.fetchrow(f"{_WHOLE} WHERE j.source = $1 AND j.external_id = $2", *key)
            if row is None:
                raise _Deleted
            return Stored(row["id"], created, _whole(row))

        with self._traced() as span, translated(), _refusals():
            span.update({"count": 1, "bytes": len(batch)})
            return await self._attempted(write)

    async def _transaction(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `write` returns from a transaction that committed; raises DatabaseUnavailable after `_ATTEMPTS`."""

        async def transaction(connection: Connection) -> T:
            async with connection.transaction():
                return await write(connection)

        return await self._attempted(transaction)

    async def _attempted(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `write` returns; raises DatabaseUnavailable after `_ATTEMPTS`.

        A write that lost against another one (a deadlock, a failed serialization, a row that vanished) starts over.
        """
        for _ in range(_ATTEMPTS):
            try:
                async with self._pool.acquire() as connection:
                    return await write(connection)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, _Deleted):
                continue
        raise DatabaseUnavailable("other writes kept conflicting with this one: send it again")

    @contextmanager
    def _traced(self) -> Iterator[dict[str, str | int]]:
        """The span of a write, with what is put into the dictionary."""
        span: dict[str, str | int] = {"outcome": "written"}
        began = time.time_ns()
        try:
            yield span
        except Exception as error:
            span |= {"outcome": "refused" if isinstance(error, Invalid) else "failed", "error": type(error).__name__}
            raise
        finally:
            self._traces.record("feed.write", began, time.time_ns(), span)

    async def read(self, job: int, within: Filter = EVERYTHING) -> bytes:
        """One posting with its description, as JSON; raises NotFound, also for one that `within` does not let through."""
        where, arguments = conditions(within, [job])
        with translated():
            found = await self._pool.fetchrow(f"{_WHOLE} WHERE {' AND '.join(['j.id = $1', *where])}", *arguments)
        if found is None:
            raise NotFound(f"there is no posting {job}")
        return _whole(found)

    async def close(self, job: int) -> None:
        """Close a posting. One that is closed stays as it is, and it is no error if there is none."""

        async def write(connection: Connection) -> None:
            await connection.execute(
                "UPDATE job SET closed_at = clock_timestamp() WHERE id = $1 AND closed_at IS NULL", job
            )

        with self._traced() as span, translated():
            span["count"] = 1
            await self._transaction(write)

    async def list(self, wanted: Filter, page: Page) -> Listing:
        """Return a page of the postings that match; see `Lists`."""
        return await self._lists.read(wanted, page)


def batch_of(postings: Sequence[PostingIn]) -> Batch:
    """Postings as the upsert takes them."""
    return Batch(len(postings), orjson.dumps([posting.row() for posting in postings]).decode())


def _whole(row: asyncpg.Record) -> bytes:
    """Return a posting with its description, as JSON, from a row of `_WHOLE`.

    Whatever plain SQL wrote as HTML, only the safe subset of it leaves here; it is also the text where there is none.
    """
    text, html = row["description"], row["description_html"]
    if html is not None:
        html = sanitised(html)
        text = text_of(html) or None if text is None else text
    descriptions = orjson.dumps({"description": text, "description_html": html})
    return b"%b,%b" % (row["posting"].removesuffix("}").encode(), descriptions[1:])


@contextmanager
def _refusals() -> Iterator[None]:
    """What Postgres itself refuses in a posting that passed our own checks."""
    try:
        yield
    except REFUSALS as error:
        raise Invalid([fault_of(error)]) from None


@asynccontextmanager
async def open_store(database_url: str) -> AsyncIterator[JobStore]:
    """A store of one's own, for programs that write straight to the database."""
    settings = load_settings(database_url=database_url).database
    async with pool(settings, database_url) as connections:
        yield JobStore(connections)

"""The writers: transactions of every shape, which also write down what became of them."""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.torture.vacancies import OwnTable

# The connection or the server went away; what was under way is open to question.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)

# The database asks for another try, or another writer was in the way.
AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)

ISOLATION = {"READ COMMITTED": 50, "REPEATABLE READ": 25, "SERIALIZABLE": 25}
OPERATIONS = {
    "insert": 22, "several": 10, "upsert": 14, "update": 12, "shared": 12, "nothing": 5, "close": 8, "reopen": 6,
    "delete": 6, "rename": 3, "expiring": 1, "bulk": 0.3, "sweep": 0.4,
}  # fmt: skip
PREPARED_AT_MOST = 30
SHARED = 25
"""Postings that all writers change."""

_COLUMNS = (
    "source, external_id, title, company, url, country, workplace, seniority, tags, salary_max, currency, description"
)
_INSERT = f"INSERT INTO feed.job ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


@dataclass(slots=True)
class Book:
    """What the writers know of their transactions; a token names one."""

    clock: "itertools.count[int]" = field(default_factory=itertools.count)
    began: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """When a commit was known to have happened."""
    durable: set[str] = field(default_factory=set)
    """Committed for good: a crash must not take them back."""
    undone: set[str] = field(default_factory=set)
    prepared: list[tuple[float, str]] = field(default_factory=list)
    """Prepared and not finished: when it is due (loop time), and the token, which is its name too."""
    counts: Counter[str] = field(default_factory=Counter)

    def committed(self, token: str, *, durable: bool = True) -> None:
        self.ended[token] = next(self.clock)
        self.counts["commits"] += 1
        if durable:
            self.durable.add(token)

    def rolled_back(self, token: str) -> None:
        self.undone.add(token)
        self.counts["rollbacks"] += 1


def posting(rng: random.Random) -> list[Any]:
    """The values of a random posting, without source and external_id."""
    n = rng.randrange(10_000)
    return [
        f"{rng.choice(('Engineer', 'Nurse', 'Baker', 'Ingénieur·e', 'Плотник'))} {n}",
        rng.choice(("Acme", "Café Müller", "O'Neill & Sons")),
        f"https://acme.example/jobs/{n}",
        rng.choice(("Germany", "France", None)),
        rng.choice(("remote", "onsite", None)),
        rng.choice(("senior", "junior", None)),
        rng.sample(("python", "postgres", "go", "a\u2028b"), rng.randrange(3)),
        rng.choice((None, rng.randrange(20_000, 120_000))),
        rng.choice(("EUR", "USD")),
        rng.choice((None, "x" * rng.randrange(3000))),
    ]


class Writer:
    """One of them: a connection of its own, one transaction after the other until told to stop."""

    def __init__(self, number: int, dsn: str, book: Book, seed: int) -> None:
        self.name = f"w{number}"
        self._dsn = dsn
        self._book = book
        self._rng = random.Random(seed)
        self._made = 0
        self._turn = 0
        self._connection: Any = None
        self._own = OwnTable(self.name, self._rng, SHARED)

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`."""
        rng = self._rng
        try:
            while not stop.is_set():
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await connect(self._dsn)
                    await self._transaction()
                    if rng.random() < 0.3:
                        await finish_prepared(self._connection, self._book, rng, asyncio.get_running_loop().time())
                    await asyncio.sleep(rng.uniform(0, 0.1))
                except LOST:
                    if self._connection is not None:
                        self._book.counts["connections lost"] += 1
                    self._drop()
                    await asyncio.sleep(rng.uniform(0, 0.1))
        finally:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _transaction(self) -> None:
        """One transaction, of a shape drawn by lot, tried again where the database asks for it."""
        rng, book = self._rng, self._book
        isolation = _draw(rng, ISOLATION)
        operations = [_draw(rng, OPERATIONS) for _ in range(rng.choice((1, 1, 1, 2, 3, 5)))]
        end = _draw(rng, {"commit": 74, "rollback": 9, "prepare": 15, "vanish": 2})
        if end == "prepare" and len(book.prepared) >= PREPARED_AT_MOST:
            end = "commit"
        durable = rng.random() < 0.9
        for _ in range(4):
            self._turn += 1
            token = f"{self.name}.{self._turn}"
            book.began[token] = next(book.clock)
            try:
                await self._connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
                await self._connection.execute(
                    f"SET LOCAL torture.token = '{token}'; SET LOCAL lock_timeout = '300ms'"
                    + ("" if durable else "; SET LOCAL synchronous_commit = off")
                    + ("; SET LOCAL feed.doorbell = off" if end == "prepare" else "")
                )
                for operation in operations:
                    await self._step(operation)
                await self._connection.execute("INSERT INTO torture.tx VALUES ($1)", token)
                await self._end(end, token, durable=durable)
                return
            except AGAIN:
                await self._connection.execute("ROLLBACK")
                book.rolled_back(token)
                book.counts["retries"] += 1
                await asyncio.sleep(rng.uniform(0, 0.02))

    async def _end(self, end: str, token: str, *, durable: bool) -> None:
        connection, book, rng = self._connection, self._book, self._rng
        if end == "commit":
            assert await connection.execute("COMMIT") == "COMMIT"
            book.committed(token, durable=durable)
        elif end == "rollback":
            await connection.execute("ROLLBACK")
            book.rolled_back(token)
        elif end == "vanish":
            connection.terminate()
            book.rolled_back(token)
        else:
            due = asyncio.get_running_loop().time() + rng.choice((0, 0.05, rng.uniform(0, 2)))
            try:
                assert await connection.execute(f"PREPARE TRANSACTION '{token}'") == "PREPARE TRANSACTION"
            except LOST:
                book.prepared.append((due, token))  # whoever finishes it finds out whether there is anything to finish
                raise
            book.prepared.append((due, token))
            book.counts["prepared"] += 1

    async def _step(self, operation: str) -> None:
        """An operation, now and then inside a savepoint that may be rolled back, or followed by a pause."""
        rng, connection = self._rng, self._connection
        lot = rng.random()
        if lot < 0.25:
            await connection.execute("SAVEPOINT a")
            await self._operate(operation)
            if lot < 0.04:
                await connection.execute("SAVEPOINT b")
                await self._operate("insert")
                await connection.execute("RELEASE b" if lot < 0.02 else "ROLLBACK TO b")
            await connection.execute("ROLLBACK TO a" if lot < 0.12 else "RELEASE a")
            self._book.counts["savepoints"] += 1
        else:
            await self._operate(operation)
        if rng.random() < 0.15:
            await asyncio.sleep(rng.choice((0.002, 0.02, rng.uniform(0, 0.4))))

    async def _operate(self, operation: str) -> None:
        """An operation on feed's table or on the attached one, by lot."""
        rng, execute = self._rng, self._connection.execute
        if rng.random() < 0.4 or operation == "rename":
            self._book.counts["on the attached table"] += 1
            await self._own.operate(self._connection, operation, posting(rng))
            return
        mine = (self.name, str(rng.randint(max(0, self._made - 40), self._made)))
        key = mine if rng.random() < 0.7 else ("shared", str(rng.randrange(SHARED)))
        title = f"Title {rng.randrange(10**6)}"
        match operation:
            case "insert":
                self._made += 1
                await execute(_INSERT, self.name, str(self._made), *posting(rng))
            case "several":
                rows = [(self.name, str(self._made + n), *posting(rng)) for n in range(1, rng.randint(3, 12))]
                self._made += len(rows)
                await self._connection.executemany(_INSERT, rows)
            case "upsert":
                changed = "title = excluded.title, country = excluded.country, closed_at = NULL"
                await execute(
                    f"{_INSERT} ON CONFLICT (source, external_id) DO UPDATE SET {changed}",
                    "shared", str(rng.randrange(SHARED)), *posting(rng),
                )  # fmt: skip
            case "update":
                await execute(
                    "UPDATE feed.job SET title = $3, country = $4, workplace = $5, salary_max = $6 "
                    "WHERE source = $1 AND external_id = $2",
                    *key, title, rng.choice(("Germany", None)), rng.choice(("remote", "hybrid")), rng.randrange(99_999),
                )  # fmt: skip
            case "shared":
                some = [str(n) for n in rng.sample(range(SHARED), 4)]
                await execute(
                    "UPDATE feed.job SET title = $1, tags = tags || 'x'::text WHERE source = 'shared' "
                    "AND external_id = ANY ($2) AND cardinality(tags) < 9", title, some,
                )  # fmt: skip
            case "nothing":
                await execute("UPDATE feed.job SET title = title WHERE source = $1 AND external_id = $2", *key)
            case "close":
                await execute(
                    "UPDATE feed.job SET closed_at = clock_timestamp() WHERE source = $1 AND external_id = $2", *key
                )
            case "reopen":
                await execute(
                    "UPDATE feed.job SET closed_at = NULL, valid_through = NULL, title = $3 "
                    "WHERE source = $1 AND external_id = $2", *key, title,
                )  # fmt: skip
            case "delete":
                await execute("DELETE FROM feed.job WHERE source = $1 AND external_id = $2", *key)
            case "expiring":
                self._made += 1
                await execute(
                    "INSERT INTO feed.job (source, external_id, title, company, url, valid_through) VALUES "
                    "($1, $2, $3, 'Acme', 'https://acme.example', clock_timestamp() + interval '1 second')",
                    self.name, str(self._made), title,
                )  # fmt: skip
            case "bulk":
                size = rng.choice((300, 1500))
                self._book.counts["bulk"] += 1
                if rng.random() < 0.5:
                    await self._connection.copy_records_to_table(
                        "job", schema_name="feed", columns=["source", "title", "company", "url", "country"],
                        records=[("bulk " + self.name, f"{title} {n}", "Bulk", "https://b.example", "Germany")
                                 for n in range(size)],
                    )  # fmt: skip
                else:
                    await execute(
                        "INSERT INTO feed.job (source, title, company, url) SELECT $1, $2 || n, 'Bulk', 'https://b.example' "
                        "FROM generate_series(1, $3::int) n", "bulk " + self.name, title, size,
                    )  # fmt: skip
            case "sweep":
                how = rng.choice(("UPDATE feed.job SET country = 'France'", "DELETE FROM feed.job"))
                await execute(f"{how} WHERE source = $1", "bulk " + self.name)


async def connect(dsn: str) -> Any:
    """A connection as a writer has it."""
    return await asyncpg.connect(
        dsn, timeout=5, command_timeout=20,
        server_settings={"application_name": "torture", "statement_timeout": "15s", "jit": "off"},
    )  # fmt: skip


async def finish_prepared(connection: Any, book: Book, rng: random.Random, now: float) -> None:
    """Commit or roll back the prepared transactions that are due, whosever they are."""
    for entry in [entry for entry in book.prepared if entry[0] <= now]:
        if entry not in book.prepared:
            continue  # another writer was faster
        book.prepared.remove(entry)
        _, token = entry
        keep = rng.random() < 0.75
        try:
            await connection.execute(f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED '{token}'")
        except asyncpg.UndefinedObjectError:
            book.counts["unknown"] += (
                1  # its PREPARE, or an earlier attempt to finish it, was cut short: the ledger knows
            )
        except LOST:
            book.prepared.append(entry)
            raise
        except asyncpg.ObjectNotInPrerequisiteStateError:
            book.prepared.append(entry)  # busy: its PREPARE is not over
        else:
            if keep:
                book.committed(token)
            else:
                book.rolled_back(token)


def _draw(rng: random.Random, weights: dict[str, Any]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]

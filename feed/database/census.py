"""The census: who subscribes in every process on one database. Asked on demand, answered through Postgres.

Each process writes itself into `process` every few seconds. Whoever asks leaves a question, rings the channel
`<schema>_census`, and gathers the answers; a process that does not answer in time is named. When nobody asks, one small
write a process is all that it costs.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import structlog

from feed import __version__
from feed.database.connect import translated
from feed.errors import DatabaseRefused, DatabaseUnavailable, NotFound
from feed.fanout.stream_report import Answer, Entry, Roll, Sort, first
from feed.settings.settings import Settings
from feed.supervision import Backoff

log = structlog.get_logger(__name__)

PRESENCE = 5.0
"""Seconds between two signs of life of a process."""
ABSENT = 15.0
"""A process that gave none for so many seconds is not asked."""
_FORGOTTEN = 600.0
_STALE = 60.0
"""Seconds after which a question and its answers are swept, if whoever asked did not live to do it."""
_PATIENCE = 1.0
"""Seconds that the other processes have to answer."""
_LOOKS = 0.01, 0.1
"""Seconds between two looks for answers: at first, and at the longest."""
_ASKING = 2
"""Questions of this process at the same time; more wait."""
_UNHEARD = 16
"""Questions that may wait for this process's answer; more are not answered."""
_KICK = 60.0
"""Seconds for which every process looks for a stream that is to end."""

_PRESENT = """
INSERT INTO process AS p (id, host, pid, worker, version) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
_SWEEP = """
WITH p AS (DELETE FROM process WHERE seen_at < clock_timestamp() - make_interval(secs => $1)),
     a AS (DELETE FROM census_answer WHERE answered_at < clock_timestamp() - make_interval(secs => $2))
DELETE FROM census WHERE asked_at < clock_timestamp() - make_interval(secs => $2)
"""
_LIVING = """
SELECT id, host, pid, worker, version, seen_at FROM process
 WHERE seen_at > clock_timestamp() - make_interval(secs => $1) ORDER BY host, started_at, id
"""
_ASK = """
WITH q AS (INSERT INTO census (id, sort, most, stream) VALUES ($1, $2, $3, $4) RETURNING id)
SELECT pg_notify(current_schema() || '_census', q.id::text) FROM q
"""
_ANSWER = """
INSERT INTO census_answer (census, process, answer) SELECT q.id, $2, $3::json FROM census q WHERE q.id = $1
ON CONFLICT DO NOTHING
"""
_ANSWERS = "SELECT process, answer FROM census_answer WHERE census = $1 AND process <> ALL ($2)"
_FORGET = "WITH q AS (DELETE FROM census WHERE id = $1) DELETE FROM census_answer WHERE census = $1"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that serves streams."""

    id: str
    """The first part of its streams' ids."""
    host: str
    pid: int
    worker: int | None
    """Its place among the workers; None: there is only one."""
    version: str = __version__
    seen_at: datetime | None = None
    """Its last sign of life."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of a question."""

    sort: Sort
    limit: int
    answers: dict[str, Answer]
    """By process."""
    processes: tuple[Process, ...]
    """All that live, whether they answered or not."""
    fault: str | None = None
    """Why other processes could not be asked."""

    @property
    def missing(self) -> list[Process]:
        """Who did not answer."""
        return [process for process in self.processes if process.id not in self.answers]

    def entries(self) -> list[tuple[Process, Entry]]:
        """The streams that come first, each with its process."""
        of = {process.id: process for process in self.processes}
        owner = {entry.id: of[id] for id, answer in self.answers.items() for entry in answer.entries}
        every = (entry for answer in self.answers.values() for entry in answer.entries)
        return [(owner[entry.id], entry) for entry in first(every, self.sort, self.limit)]


def this_process(id: str, worker: int | None) -> Process:
    """The process that runs this."""
    return Process(id, socket.gethostname(), os.getpid(), worker)


class Census:
    """Asks, and answers for this process."""

    def __init__(
        self, settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]", roll: Roll, here: Process,
        revoke: Callable[[str, str, float], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._pool = pool
        self._revoke = revoke  # lets every process hear that something ends: its kind, its id, for how many seconds
        self._roll = roll
        self._here = here
        self._asking = asyncio.Semaphore(_ASKING)
        self._heard: asyncio.Queue[UUID] = asyncio.Queue(_UNHEARD)
        self._own: set[UUID] = set()  # questions of ours that are open

    @property
    def channel(self) -> str:
        """Where questions are announced."""
        return f"{self._settings.database.schema_name}_census"

    def hear(self, said: str) -> None:
        """A question was announced; call it from whatever listens to `channel`."""
        try:
            question = UUID(said)
            if question not in self._own:
                self._heard.put_nowait(question)
        except (ValueError, asyncio.QueueFull):  # anybody who may connect may NOTIFY
            log.debug("a question was not heard", said=said[:50])

    async def run(self) -> None:
        """Be present and answer, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._be_present(), name="census presence")
            tasks.create_task(self._answer_all(), name="census answers")

    async def leave(self) -> None:
        """This process ends: nobody need wait for its answer."""
        try:
            async with asyncio.timeout(_PATIENCE):
                with translated():
                    await self._pool.execute("DELETE FROM process WHERE id = $1", self._here.id)
        except (DatabaseUnavailable, DatabaseRefused, TimeoutError):
            pass  # it is forgotten all the same

    async def ask(self, sort: Sort, limit: int) -> Tally:
        """The streams of all processes, at most `limit` of them one by one."""
        own = await self._roll.call(sort, limit)
        try:
            processes = await self._living()
            others = [process for process in processes if process.id != self._here.id]
            answers = await self._gather(others, sort, limit) if others else {}
        except (DatabaseUnavailable, DatabaseRefused) as error:
            return Tally(sort, limit, {self._here.id: own}, (self._here,), str(error))
        return Tally(sort, limit, {self._here.id: own} | answers, (self._now(), *others))

    async def kick(self, stream: str) -> bool:
        """End a stream wherever it is; True: at once, False: within seconds. Raises NotFound where nobody has it."""
        if self._roll.end(stream):
            return True
        owner = [process for process in await self._living() if process.id == stream.partition("-")[0]]
        missing = NotFound(f"there is no open stream {stream[:80]!r}")
        if not owner or owner[0].id == self._here.id:
            raise missing
        answers = await self._gather(owner, Sort.AGE, 1, stream)
        if any(not answer.entries for answer in answers.values()):
            raise missing
        # Told by a row and not by the question: who did not answer in time reads it later.
        await self._revoke("stream", stream, _KICK)
        return False

    async def _living(self) -> list[Process]:
        with translated():
            rows = await self._pool.fetch(_LIVING, ABSENT)
        return [Process(**row) for row in rows]

    def _now(self) -> Process:
        return replace(self._here, seen_at=datetime.now(UTC))

    async def _gather(
        self, processes: Iterable[Process], sort: Sort, limit: int, stream: str | None = None
    ) -> dict[str, Answer]:
        """The answers of those that answer in time."""
        wanted = {process.id for process in processes}
        answers: dict[str, Answer] = {}
        question = uuid4()
        async with self._asking:
            self._own.add(question)
            with translated():
                try:
                    await self._pool.execute(_ASK, question, sort.value, limit, stream)
                    async with asyncio.timeout(_PATIENCE):
                        await self._collect(question, wanted, answers)
                except TimeoutError:
                    pass
                finally:
                    self._own.discard(question)
                    await self._pool.execute(_FORGET, question)
        return answers

    async def _collect(self, question: UUID, wanted: Collection[str], answers: dict[str, Answer]) -> None:
        pause, longest = _LOOKS
        while not answers.keys() >= set(wanted):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)
            for process, answer in await self._pool.fetch(_ANSWERS, question, list(answers)):
                if process in wanted:
                    answers[process] = Answer.read(orjson.loads(answer))

    async def _be_present(self) -> None:
        here, backoff = self._here, Backoff(PRESENCE)
        while True:
            try:
                with translated():
                    await self._pool.execute(_PRESENT, here.id, here.host, here.pid, here.worker, here.version)
                    await self._pool.execute(_SWEEP, _FORGOTTEN, _STALE)
            except (DatabaseUnavailable, DatabaseRefused):
                await backoff.wait()  # the tailer says what is wrong
            except Exception:  # a fault of ours must not end the feed: it is seen, and tried again
                log.exception("census presence failed")
                await asyncio.sleep(PRESENCE)
            else:
                backoff.reset()
                await asyncio.sleep(PRESENCE)

    async def _answer_all(self) -> None:
        while True:
            question = await self._heard.get()
            try:
                with translated():
                    await self._answer(question)
            except (DatabaseUnavailable, DatabaseRefused) as error:
                log.info("a question was not answered", error=str(error))
            except Exception:  # a fault of ours must not end the feed: it is seen
                log.exception("census answer failed")

    async def _answer(self, question: UUID) -> None:
        row: Any = await self._pool.fetchrow("SELECT sort, most, stream FROM census WHERE id = $1", question)
        if row is None:  # too late
            return
        sort = Sort(row["sort"]) if row["sort"] in list(Sort) else Sort.LAG
        answer = await self._roll.call(sort, row["most"], row["stream"])
        await self._pool.execute(_ANSWER, question, self._here.id, answer.document())

"""The verdict: the ledger of what was committed against the record of what arrived."""

import bisect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from tests.torture.ledger import Change, changes, digest
from tests.torture.subscriber import Record, Seen, Subscriber
from tests.torture.vacancies import Lives, compare_mirror
from tests.torture.writer import Book

Key = tuple[int, str, str | None, int]
"""Names a change: job, kind, reason, version. A posting that is closed and then deleted is closed twice, for two reasons."""


async def judge(
    connection: "asyncpg.Connection[asyncpg.Record]", book: Book, record: Record, filtered: Sequence[Subscriber]
) -> int:
    """Enter every difference as a fault in `record`; return the number of committed changes."""
    committed = {row[0] for row in await connection.fetch("SELECT token FROM torture.tx")}
    for token in sorted(book.durable - committed):
        record.fault("commit lost", f"{token} was committed and is gone: the database's fault, or this test's")
    for token in sorted(book.undone & committed):
        record.fault("rollback kept", f"{token} was rolled back and is there: the database's fault, or this test's")

    events = record.events
    positions = _positions(record)
    by_job: dict[int, list[tuple[str, str | None, int, int]]] = defaultdict(list)
    expected: dict[str, list[tuple[int, str, str | None, int, int]]] = {one.name: [] for one in filtered}
    order: dict[str, list[tuple[int, float]]] = defaultdict(list)
    written = 0
    lives = Lives(record)
    async for found in changes(connection):
        written += 1
        change = lives.named(found)
        job, version = change.body["id"], change.body["version"]
        by_job[job].append((change.kind, change.reason, version, digest(change.body)))
        position = positions.get((job, change.kind, change.reason, version))
        if position is None:
            record.fault("missed", f"nobody was sent {change}")
            continue
        if change.token is not None:
            order[change.token].append((position, change.at))
        for one in filtered:
            kind, reason = _told(one, change)
            if kind is not None:
                expected[one.name].append((position, kind, reason, job, version))

    _compare_logs(record, await connection.fetch("SELECT position, kind, reason FROM feed.log ORDER BY position"))
    if len(events) != written:
        record.fault("count", f"{len(events)} events arrived, {written} changes were committed")
    _compare_jobs(record, by_job)
    _compare_order(record, book, order)
    await compare_mirror(connection, record)
    for one in filtered:
        _compare_filtered(record, one, sorted(expected[one.name]))
        await _compare_open(record, one, connection)
    return written


def _positions(record: Record) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for position, seen in record.events.items():
        key = (seen.job, seen.kind, seen.reason, seen.version)
        if key in found:
            record.fault("twice", f"{seen} is at {found[key]} and at {position}")
        found[key] = position
    return found


def _told(one: Subscriber, change: Change) -> tuple[str | None, str | None]:
    """What the contract says a filtered subscriber is told of a change: kind and reason, or nothing."""
    assert one.wanted is not None
    if one.wanted(change.body):
        return change.kind, change.reason
    if change.was is None or not one.wanted(change.was) or change.kind == "posted":
        return None, None
    return "closed", change.reason or "left_filter"


def _compare_logs(record: Record, rows: list[Any]) -> None:
    """The log is dense from 1, and is what arrived."""
    for expected, (position, kind, reason) in enumerate(rows, 1):
        if position != expected:
            record.fault("gap", f"the log holds {position} where {expected} was due")
            return
        seen = record.events.get(position)
        if seen is None:
            record.fault("missed", f"nobody was sent {position}, {kind}")
        elif (seen.kind, seen.reason) != (kind, reason):
            record.fault("differs", f"{position} is {kind}, {reason} in the log and arrived as {seen}")


def _compare_jobs(record: Record, by_job: dict[int, list[tuple[str, str | None, int, int]]]) -> None:
    """Of each posting the same states in the same order, to the last field."""
    arrived: dict[int, list[tuple[str, str | None, int, int]]] = defaultdict(list)
    for position in sorted(record.events):
        seen: Seen = record.events[position]
        arrived[seen.job].append((seen.kind, seen.reason, seen.version, seen.digest))
    for job in by_job.keys() | arrived.keys():
        if by_job[job] != arrived[job]:
            record.fault("posting", f"{job} went through {by_job[job]}, and arrived as {arrived[job]}")
    for job, states in arrived.items():
        if [version for _, _, version, _ in states] != sorted(version for _, _, version, _ in states):
            record.fault("order", f"the versions of {job} arrived as {states}")


def _compare_order(record: Record, book: Book, order: dict[str, list[tuple[int, float]]]) -> None:
    """What was committed before another transaction began comes before it, whoever wrote; statements keep their order."""
    first = {token: min(position for position, _ in found) for token, found in order.items()}
    last = {token: max(position for position, _ in found) for token, found in order.items()}
    ended = sorted((book.ended[token], last[token], token) for token in order if token in book.ended)
    times = [entry[0] for entry in ended]
    highest: list[tuple[int, str]] = []
    for _, position, token in ended:
        highest.append(max(highest[-1], (position, token)) if highest else (position, token))
    for token, position in first.items():
        before = bisect.bisect_left(times, book.began[token])
        if before and highest[before - 1][0] > position:
            record.fault("order", f"{token} (from {position}) began after {highest[before - 1]} had been committed")
    for token, found in order.items():
        statements = [at for _, at in sorted(found)]
        if statements != sorted(statements):
            record.fault("order", f"the statements of {token} arrived as {sorted(found)[:20]}")


def _compare_filtered(record: Record, one: Subscriber, expected: list[tuple[int, str, str | None, int, int]]) -> None:
    if one.told == expected:
        return
    missed, extra = set(expected) - set(one.told), set(one.told) - set(expected)
    for entry in sorted(missed):
        record.fault("missed", f"{one.name} was not told {entry}")
    for entry in sorted(extra):
        record.fault("extra", f"{one.name} was told {entry}")
    if not missed and not extra:
        record.fault("twice", f"{one.name} was told {len(one.told)} events, {len(expected)} matched")


async def _compare_open(record: Record, one: Subscriber, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """The list that a filtered subscriber kept is the one that SQL gives now."""
    assert one.wanted is not None
    rows = await connection.fetch("SELECT to_jsonb(j) FROM feed.job j WHERE closed_at IS NULL")
    bodies = [orjson.loads(row[0]) for row in rows]
    true = {body["id"]: body["version"] for body in bodies if one.wanted(body)}
    if true != one.open:
        wrong = sorted(true.items() ^ one.open.items())[:10]
        record.fault("list", f"{one.name} holds {len(one.open)} open postings, SQL {len(true)}; first {wrong}")

"""The way of an event through the database: captured, sequenced, kept, announced."""

import asyncio
from datetime import timedelta
from typing import Any

from feed.database.leading import leader
from feed.doctor.finding import Finding, fail, ok, warn
from feed.settings.settings import Settings

_TRIGGERS = ("feed_insert", "feed_update", "feed_delete", "feed_truncate")
_LATE = 5.0
"""Seconds after which an event that is committed should be in the log, whatever the load."""
_LOOK_AGAIN = 1.0
_LONG = 300.0
"""Seconds of an open transaction that is forgotten rather than busy."""
_QUEUE_WARN, _QUEUE_FAIL = 0.1, 0.5
_COUNTED = 100_000

_CAPTURE = """
SELECT format('%I.%I', s.nspname, c.relname) AS "table", array_agg(t.tgname::text ORDER BY t.tgname) AS present,
       array_agg(t.tgname::text ORDER BY t.tgname) FILTER (WHERE t.tgenabled NOT IN ('O', 'A')) AS off
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace s ON s.oid = c.relnamespace
  JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE NOT t.tgisinternal AND n.nspname = $1 AND p.proname = 'capture_job' GROUP BY 1 ORDER BY 1
"""
_INBOX = f"""
SELECT (SELECT count(*) FROM (SELECT FROM inbox LIMIT {_COUNTED}) i) AS waiting,
       f.id, extract(epoch FROM clock_timestamp() - f.at)::float8 AS age
  FROM (SELECT i.id, i.at FROM inbox i ORDER BY i.xid, i.id LIMIT 1) f
"""
_PREPARED = """
SELECT format('%L', gid) AS gid, owner::text AS owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age
  FROM pg_prepared_xacts
 WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => $1) ORDER BY prepared LIMIT 3
"""
_IDLE = """
SELECT pid, coalesce(nullif(application_name, ''), usename::text, '?') AS who,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age
  FROM pg_stat_activity
 WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND backend_xid IS NOT NULL
   AND xact_start < clock_timestamp() - make_interval(secs => $1) ORDER BY xact_start LIMIT 3
"""
_KEPT = """
SELECT s.head, s.floor,
       (SELECT extract(epoch FROM clock_timestamp() - l.at)::float8 FROM log l
         WHERE l.position > s.floor ORDER BY l.position LIMIT 1) AS oldest,
       (SELECT max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''?(\\d+)'))[1]::bigint)
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'log'::regclass) AS upto
  FROM state s
"""


async def captured(connection: Any, settings: Settings) -> list[Finding]:
    """Check that the triggers which put changes into the inbox are there and enabled."""
    findings = []
    rows = await connection.fetch(_CAPTURE, settings.database.schema_name)
    if not any(row["table"] == f"{settings.database.schema_name}.job" for row in rows):
        findings.append(
            fail("triggers", f"{settings.database.schema_name}.job has no triggers: its changes are not seen",
                 "Restore the schema, or move to a new one (FEED_SCHEMA) with feed migrate.")
        )  # fmt: skip
    for row in rows:
        table = row["table"]
        missing = [name for name in _TRIGGERS if name not in row["present"]]
        if missing:
            todo = "Restore them from a backup of the schema: pg_restore --section=post-data."
            findings.append(fail("triggers", f"{table} lacks {', '.join(missing)}: such changes are not seen", todo))
        if row["off"]:
            todo = " ".join(f"ALTER TABLE {table} ENABLE TRIGGER {name};" for name in row["off"])
            findings.append(fail("triggers", f"disabled on {table}: {', '.join(row['off'])}", todo))
    if await connection.fetchval("SHOW session_replication_role") != "origin":
        findings.append(
            fail("triggers", "session_replication_role is not origin: sessions fire no triggers",
                 "ALTER DATABASE ... RESET session_replication_role; (or the same of the role).")
        )  # fmt: skip
    return findings or [ok("triggers", f"on {', '.join(row['table'] for row in rows)}")]


async def backlog(connection: Any, settings: Settings) -> list[Finding]:
    """Check that a process moves the inbox to the log, and keeps up."""
    leads = await leader(connection, settings.database.schema_name)
    row = await connection.fetchrow(_INBOX)
    if row is not None and row["age"] > _LATE:
        # It may have been committed this very moment, after a long transaction.
        await asyncio.sleep(_LOOK_AGAIN)
        again = await connection.fetchrow(_INBOX)
        row = again if again is not None and again["id"] == row["id"] else None
    head = await connection.fetchrow(
        "SELECT head, extract(epoch FROM clock_timestamp() - at)::float8 AS age FROM state"
    )
    last = f"position {head['head']:,}, {_span(head['age'])} ago"
    who = "no process leads" if leads is None else f"led from {leads.address} (backend {leads.pid})"
    if row is not None and row["age"] > _LATE:
        many = f"{row['waiting']:,}{'+' if row['waiting'] == _COUNTED else ''}"
        found = f"{many} changes wait, the oldest for {_span(row['age'])}; {who}; last {last}"
        todo = (
            "Start feed serve (with FEED_SEQUENCER on)." if leads is None
            else f"Restart the feed serve that leads; if it is gone: SELECT pg_terminate_backend({leads.pid});"
        )  # fmt: skip
        return [fail("sequencer", found, todo)]
    if leads is None:
        return [
            warn("sequencer", f"{who}; nothing waits; last {last}", "Start feed serve: until then nothing is streamed.")
        ]
    return [ok("sequencer", f"{who}; nothing waits; last {last}")]


async def held_back(connection: Any, _: Settings) -> list[Finding]:
    """Look for transactions that somebody forgot: their events come when they end, and vacuum waits for them."""
    findings = []
    for row in await connection.fetch(_PREPARED, _LONG):
        found = f"prepared transaction {row['gid']} of {row['owner']} is {_span(row['age'])} old"
        todo = f"COMMIT PREPARED {row['gid']}; or ROLLBACK PREPARED {row['gid']};"
        findings.append(warn("transactions", found, todo))
    for row in await connection.fetch(_IDLE, _LONG):
        found = (
            f"{row['who']} (backend {row['pid']}) has been idle in a transaction that writes for {_span(row['age'])}"
        )
        todo = f"Have it commit, or SELECT pg_terminate_backend({row['pid']}); and set idle_in_transaction_session_timeout."
        findings.append(warn("transactions", found, todo))
    return findings or [ok("transactions", "no transaction has been left open for long")]


async def retained(connection: Any, settings: Settings) -> list[Finding]:
    """Check what the log keeps, and whether it has room for more."""
    row = await connection.fetchrow(_KEPT)
    findings = []
    oldest = row["oldest"]
    kept = f"{row['head'] - row['floor']:,} events" + ("" if oldest is None else f", the oldest of {_span(oldest)} ago")
    # Retention works in rounds, and a partition goes as a whole.
    if oldest is not None and oldest > settings.log.retention * 1.1 + 2 * settings.log.housekeeping:
        todo = "Retention is behind: see what the leader's log says of it, and look for long readers of feed.log."
        findings.append(warn("retention", f"{kept}; FEED_RETENTION is {_span(settings.log.retention)}", todo))
    ahead = (row["upto"] or 0) - row["head"]
    if ahead <= settings.sequencer.batch:
        todo = "Start feed serve, which makes them; FEED_LOG_PARTITION says how large."
        findings.append(fail("retention", f"the log has room for {max(0, ahead - 1):,} more events", todo))
    elif ahead < min(settings.log.partition, settings.log.partition * settings.log.partitions_ahead):
        todo = "Events come faster than partitions are made: raise FEED_LOG_PARTITIONS_AHEAD or FEED_LOG_PARTITION."
        findings.append(warn("retention", f"room for {ahead - 1:,} more events in the partitions that there are", todo))
    return findings or [ok("retention", f"{kept}; room for {ahead - 1:,} more")]


async def notifications(connection: Any, _: Settings) -> list[Finding]:
    """Check how full the queue of notifications is: one session that listens and does not read fills it for all."""
    usage = float(await connection.fetchval("SELECT pg_notification_queue_usage()"))
    found = f"{usage:.1%} of the queue is used"
    todo = "A session that listens sits in a transaction: find it in pg_stat_activity by xact_start, and end it."
    if usage > _QUEUE_FAIL:
        return [fail("notifications", found, f"{todo} When the queue is full, writers fail.")]
    return [warn("notifications", found, todo)] if usage > _QUEUE_WARN else [ok("notifications", found)]


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return str(timedelta(seconds=round(seconds)))

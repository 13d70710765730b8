"""What a database must be for a feed: there, the right kind, with the rights and the schema, and with room."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from feed.database.check import check
from feed.database.connect import RIGHTS, owned, translated
from feed.database.migrate import migrations
from feed.database.presence import MISSING_AFTER
from feed.doctor.attached import attached
from feed.doctor.finding import Finding, Verdict, fail, ok, warn
from feed.doctor.flow import backlog, captured, held_back, notifications, retained
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.settings.settings import Settings

_OLDEST = 14
_OWN_CONNECTIONS = 4
"""Connections of a process besides its pool: sequencer, tailer, retention, and one to spare for checks."""
_CLOCK_WARN, _CLOCK_FAIL = 2.0, 60.0  # seconds
_FUNCTIONS = ("pg_control_system()", "pg_walfile_name(pg_lsn)", "pg_current_wal_insert_lsn()")
"""What tells a restored or promoted database from what it was."""

Check = Callable[[Any, Settings], Awaitable[Iterable[Finding]]]


def embedded_dsn(folder: Path) -> str | None:
    """Return the DSN of the embedded Postgres of a data folder, None where it does not run; this starts nothing."""
    try:
        pid, _, _, port, sockets, address = (folder / "postgres" / "postmaster.pid").read_text().splitlines()[:6]
        if not Path(f"/proc/{int(pid)}").exists() and Path("/proc/self").exists():
            return None
    except (OSError, ValueError):
        return None
    return f"postgresql://postgres@/postgres?host={sockets or address}&port={port.strip()}"


async def examine_database(settings: Settings, dsn: str) -> AsyncIterator[Finding]:
    """Check the database at `dsn`, and go on after a failed check wherever the next one can be made."""
    try:
        await check(settings.database, dsn)
    except DatabaseUnavailable as error:
        yield fail("database", str(error), "Start it, or correct host and port in DATABASE_URL.")
        return
    except DatabaseRefused as error:
        found, _, todo = str(error).partition(". ")
        yield fail("database", found, todo or "Correct DATABASE_URL.")
        return
    try:
        async with owned(settings.database, dsn, "doctor", default_transaction_read_only="on") as connection:
            for step in _SERVER:
                for finding in await _done(step, connection, settings):
                    yield finding
            schema = await _migrated(connection, settings)
            yield schema
            if schema.verdict is not Verdict.FAIL:
                for step in _SCHEMA:
                    for finding in await _done(step, connection, settings):
                        yield finding
    except (DatabaseUnavailable, DatabaseRefused) as error:
        yield fail("database", str(error), "It went away in the middle: run this again.")


async def _done(step: Check, connection: Any, settings: Settings) -> Iterable[Finding]:
    """Make one check; that the role may not make it is a finding too."""
    try:
        with translated():
            return await step(connection, settings)
    except DatabaseRefused as error:
        found, _, todo = str(error).partition(". ")
        return [warn(step.__name__.strip("_").replace("_", " "), f"could not be checked: {found}", todo)]


async def _server(connection: Any, _: Settings) -> list[Finding]:
    version, name = await connection.fetchrow("SELECT current_setting('server_version'), current_database()")
    what = f"Postgres {version.split()[0]}, database {name}, a primary, no pooler between transactions"
    if connection.get_server_version().major < _OLDEST:
        return [fail("database", what, f"Upgrade it: feed needs Postgres {_OLDEST} or newer.")]
    return [ok("database", what)]


async def _encoding(connection: Any, _: Settings) -> list[Finding]:
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        return [fail("encoding", encoding, "Create a database with ENCODING 'UTF8' and use that.")]
    return [ok("encoding", encoding)]


async def _durable(connection: Any, _: Settings) -> list[Finding]:
    off = [name for name in ("fsync", "full_page_writes") if await connection.fetchval(f"SHOW {name}") == "off"]
    if off:
        return [
            warn("durability", f"{' and '.join(off)} off", "Turn it on: a crash may lose or damage what was written.")
        ]
    return [ok("durability", "fsync on")]


async def _room(connection: Any, settings: Settings) -> list[Finding]:
    row = await connection.fetchrow(
        "SELECT current_setting('max_connections')::int AS most, "
        "current_setting('superuser_reserved_connections')::int AS reserved, "
        "(SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS used"
    )
    free = row["most"] - row["reserved"] - row["used"]
    needed = settings.database.pool_size + _OWN_CONNECTIONS
    found = f"{free} of {row['most']} connections are free; a process of feed uses up to {needed}"
    if free < needed:
        return [warn("connections", found, "Raise max_connections, or lower FEED_POOL_SIZE or the number of workers.")]
    return [ok("connections", found)]


async def _clocks(connection: Any, _: Settings) -> list[Finding]:
    before = time.time()
    there = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    after = time.time()
    apart = max(0.0, before - there, there - after)  # what the way took is no difference
    found = f"the database's clock and this machine's are {apart:.1f} s apart"
    todo = "Run an NTP client (chrony, systemd-timesyncd) on both: `since`, expiry and tickets rest on it."
    if apart > _CLOCK_FAIL:
        return [fail("clock", found, todo)]
    return [warn("clock", found, todo)] if apart > _CLOCK_WARN else [ok("clock", found)]


async def _rights(connection: Any, settings: Settings) -> list[Finding]:
    schema = settings.database.schema_name
    row = await connection.fetchrow(
        "SELECT to_regnamespace($1) IS NOT NULL AS present, has_database_privilege(current_database(), 'CREATE') AS may, "
        "(SELECT bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE')) "
        "   FROM pg_namespace n WHERE n.nspname = $1) AS usable, "
        "(SELECT array_agg(c.relname::text ORDER BY c.relname) "
        "   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "  WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE')) AS foreign, "
        "(SELECT array_agg(f) FROM unnest($2::text[]) f WHERE NOT has_function_privilege(f, 'EXECUTE')) AS closed, "
        "quote_ident(current_user) AS role",
        schema, list(_FUNCTIONS),
    )  # fmt: skip
    findings = []
    if row["closed"]:
        grants = " ".join(f"GRANT EXECUTE ON FUNCTION {name} TO {row['role']};" for name in row["closed"])
        findings.append(fail("rights", f"the role {row['role']} may not call {', '.join(row['closed'])}", grants))
    if not row["present"] and not row["may"]:
        findings.append(
            fail("rights", f"there is no schema {schema}, and the role {row['role']} may not create it", RIGHTS)
        )
    elif row["present"] and not row["usable"]:
        findings.append(
            fail("rights", f"the role {row['role']} may not create anything in the schema {schema}", RIGHTS)
        )
    if row["foreign"]:
        names = ", ".join(row["foreign"][:3])
        findings.append(
            fail(
                "rights",
                f"the role {row['role']} does not own {names}",
                f"ALTER TABLE {schema}.<table> OWNER TO {row['role']};",
            )
        )
    return findings or [ok("rights", f"the role {row['role']} has what it needs in the schema {schema}")]


async def _migrated(connection: Any, settings: Settings) -> Finding:
    with translated():
        if not await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
            return fail(
                "schema", f"there is no feed in the schema {settings.database.schema_name} yet", "Run feed migrate."
            )
        rows = await connection.fetch("SELECT version, checksum FROM migration")
    done = {row["version"]: row["checksum"] for row in rows}
    ours = {migration.version: migration for migration in migrations()}
    newest = max(ours)
    other = [
        f"{number:04d}" for number, checksum in done.items() if number in ours and ours[number].checksum != checksum
    ]
    if other:
        return fail(
            "schema", f"migration {', '.join(other)} was applied in another form",
            "Run the version of feed that applied it, or use another schema (FEED_SCHEMA).",
        )  # fmt: skip
    if max(done, default=0) > newest:
        return fail("schema", f"at {max(done):04d}, newer than this feed ({newest:04d})", "Upgrade feed here.")
    left = [f"{number:04d} {migration.name}" for number, migration in sorted(ours.items()) if number not in done]
    if left:
        return fail(
            "schema", f"not applied: {', '.join(left)}", "Run feed migrate, or start feed serve, which does it."
        )
    return ok("schema", f"up to date ({newest:04d})")


async def _keys(connection: Any, settings: Settings) -> list[Finding]:
    rows = await connection.fetch(
        "SELECT scope, count(*)::int AS n FROM api_key "
        "WHERE revoked_at IS NULL AND coalesce(expires_at, 'infinity') > clock_timestamp() GROUP BY scope"
    )
    active = {row["scope"]: row["n"] for row in rows}
    listed = ", ".join(f"{count} {scope}" for scope, count in sorted(active.items())) or "none"
    is_open = {"reading": settings.open_reading, "writing": settings.open_writing}
    needs = [name for name in is_open if not is_open[name]]
    if not needs:
        return [ok("keys", f"reading and writing are open on {settings.listen.host}; active keys: {listed}")]
    if settings.jwt.algorithm is not None:
        return [ok("keys", f"tokens ({settings.jwt.algorithm}) are accepted; active keys: {listed}")]
    found = f"{' and '.join(needs)} needs a credential; active keys: {listed}"
    if "writing" in needs and not active.keys() & {"write", "admin"}:
        return [warn("keys", found, "Nobody can write: run feed key create --scope write.")]
    if "reading" in needs and not active.keys() & {"read", "write", "admin"}:
        return [warn("keys", found, "Nobody can read: run feed key create --scope read.")]
    return [ok("keys", found)]


async def _processes(connection: Any, _: Settings) -> list[Finding]:
    rows = await connection.fetch(
        "SELECT version, count(*)::int AS n, count(DISTINCT host)::int AS hosts FROM process "
        "WHERE seen_at > clock_timestamp() - make_interval(secs => $1) GROUP BY version ORDER BY version",
        MISSING_AFTER,
    )
    count = sum(row["n"] for row in rows)
    found = f"{count} serving" + "".join(f", {row['n']} of version {row['version']}" for row in rows)
    if len(rows) > 1:
        return [warn("processes", found, "Fine during an upgrade; else restart those that are left behind.")]
    return [ok("processes", found)]


_SERVER: tuple[Check, ...] = (_server, _encoding, _durable, _room, _clocks, _rights)
_SCHEMA: tuple[Check, ...] = (captured, attached, backlog, held_back, retained, notifications, _processes, _keys)

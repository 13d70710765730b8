"""Attached tables: whether every change of theirs is seen, and why not; whether they can be compared with their postings."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from feed.database.attachment_ddl import Relation
from feed.database.attachments import Attached, AttachedTable, attached_tables, load
from feed.database.leading import leader
from feed.database.table_shape import describe
from feed.doctor.finding import Finding, fail, ok, warn
from feed.errors import ConfigurationError
from feed.settings.settings import Settings

_OPERATIONS = ("insert", "update", "delete", "truncate")
_FUNCTIONS = """
SELECT count(*) FROM pg_proc p WHERE p.pronamespace = $1::text::regnamespace
   AND p.proname ~ ('^(posting_of|key_of|map)_' || $2::text || '_')
"""
_TRIGGERS = """
SELECT t.tgrelid::bigint AS oid, t.tgname::text AS name, t.tgenabled::text AS enabled, quote_ident(t.tgname) AS quoted
  FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgrelid = ANY ($1::bigint[]::oid[]) AND t.tgname = ANY ($2::text[])
"""
# Who fires only triggers that are ENABLE ALWAYS, by a setting of a role, of this database, or of a role in it.
_BYPASSING = """
SELECT CASE WHEN s.setrole = 0 THEN format('DATABASE %I', d.datname)
            WHEN s.setdatabase = 0 THEN format('ROLE %I', r.rolname)
            ELSE format('ROLE %I IN DATABASE %I', r.rolname, d.datname) END AS who
  FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
 WHERE (s.setdatabase = 0 OR d.datname = current_database())
   AND EXISTS (SELECT FROM unnest(s.setconfig) c WHERE lower(c) = 'session_replication_role=replica') ORDER BY 1
"""
_SUBSCRIBED = """
SELECT DISTINCT quote_ident(s.subname) FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
 WHERE s.subenabled AND r.srrelid = ANY ($1::bigint[]::oid[]) ORDER BY 1
"""
_WITHOUT = """
SELECT b.why, count(*) AS n FROM attachment_bad b WHERE b.attachment = $1 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1
"""


async def attached(connection: Any, settings: Settings) -> list[Finding]:
    """Check the attached tables, one after the other; nothing where there are none."""
    found: list[Finding] = []
    leads = await leader(connection, settings.database.schema_name) is not None
    for table in await attached_tables(connection):
        findings = await _examined(connection, settings, table, leads=leads)
        found += findings or [ok(_check(table), await _healthy(connection, table))]
    return found


async def _examined(connection: Any, settings: Settings, table: AttachedTable, *, leads: bool) -> list[Finding]:
    """Return what is wrong with one attached table."""
    check, name = _check(table), table.name
    if table.ending:
        return [warn(check, "feed detach was begun and has not ended", f"Run feed detach {name} again.")]
    known = await load(connection, settings.database.schema_name, table.number)
    if name is None or known is None:
        todo = f"Run feed detach {table.spec.table}: it closes its postings."
        return [fail(check, "the table was dropped, and its postings are still there", todo)]
    try:
        shape = await describe(connection, name)
    except ConfigurationError as error:
        return [fail(check, str(error), f"Run feed detach {name}, and attach the table that its rows are in now.")]
    findings: list[Finding] = []
    if shape.grants:
        findings.append(fail(check, f"the role {shape.role} lacks rights to it", " ".join(shape.grants)))
    if shape.row_security is not None:
        found, _, todo = shape.row_security.partition(". ")
        findings.append(fail(check, found, todo))
    if whole := await _columns(connection, settings, table, known):
        findings.append(whole)
    findings += await _triggers(connection, check, known, leads=leads)
    findings += await _bypassed(connection, check, known)
    return findings + _compared(table, settings, leads=leads)


async def _columns(connection: Any, settings: Settings, table: AttachedTable, known: Attached) -> Finding | None:
    """Check that the map has its columns and its functions."""
    todo = (
        f"Give another expression: feed attach {table.name} --map FIELD=EXPR (FIELD=NULL leaves the field out); `feed "
        f"attached --json` shows the map."
    )
    if known.missing:
        columns = ", ".join(known.missing)
        return fail(_check(table), f"the map reads columns that the table does not have any more: {columns}", todo)
    there = await connection.fetchval(_FUNCTIONS, f'"{settings.database.schema_name}"', str(table.number))
    if there < 3:
        found = (
            "functions of its map are gone, as after ALTER TABLE ... DROP COLUMN ... CASCADE: its changes are not seen"
        )
        return fail(_check(table), found, todo)
    return None


async def _triggers(connection: Any, check: str, known: Attached, *, leads: bool) -> list[Finding]:
    """Check that the table, each partition and each child has its triggers, and that they are enabled."""
    names = {known.ddl.trigger_name(one): one for one in _OPERATIONS}
    rows = await connection.fetch(_TRIGGERS, [one.oid for one in known.relations], list(names))
    there = {(row["oid"], row["name"]): row for row in rows}
    findings: list[Finding] = []
    for relation in known.relations:
        missing = [operation for name, operation in names.items() if (relation.oid, name) not in there]
        if missing:
            todo = (
                "It makes them within seconds; if not, its log says why."
                if leads
                else "Start feed serve: it makes them."
            )
            found = f"{relation.name} has no trigger for {', '.join(missing)}: such changes are not seen"
            findings.append(fail(check, found, f"{todo} Or run feed attach {known.spec.table} again."))
        off = [
            there[relation.oid, name]["quoted"]
            for name in names
            if (relation.oid, name) in there and there[relation.oid, name]["enabled"] not in ("O", "A")
        ]
        if off:
            findings.append(fail(check, f"disabled on {relation.name}: {', '.join(off)}", _enable(relation, off)))
    return findings


async def _bypassed(connection: Any, check: str, known: Attached) -> list[Finding]:
    """Look for writers for whom the triggers do not fire."""
    findings: list[Finding] = []
    oids = [one.oid for one in known.relations]
    names = [known.ddl.trigger_name(one) for one in _OPERATIONS]
    usual = {row["oid"] for row in await connection.fetch(_TRIGGERS, oids, names) if row["enabled"] == "O"}
    bypassing = [row["who"] for row in await connection.fetch(_BYPASSING)]
    if usual and bypassing:
        relations = [one for one in known.relations if one.oid in usual]
        resets = " ".join(f"ALTER {who} RESET session_replication_role;" for who in bypassing)
        always = " ".join(_enable(one, [f'"{name}"' for name in names], always=True) for one in relations[:2])
        more = " ..." if len(relations) > 2 else ""
        found = f"session_replication_role is replica for {', '.join(bypassing)}: no trigger fires for what is written there"
        findings.append(warn(check, found, f"{resets} Or, as the owner of the table: {always}{more}"))
    subscriptions = [row[0] for row in await connection.fetch(_SUBSCRIBED, oids)]
    if subscriptions:
        found = (
            f"the subscription {', '.join(subscriptions)} writes to it, for which no statement trigger fires: such "
            "changes are seen only when the table is compared"
        )
        todo = "Attach the table where it is published, or lower FEED_ATTACHED_COMPARE_EVERY."
        findings.append(warn(check, found, todo))
    return findings


def _compared(table: AttachedTable, settings: Settings, *, leads: bool) -> list[Finding]:
    """Check that the table could be compared with its postings, and was."""
    check = _check(table)
    every = settings.attached.compare_every
    if table.broken is not None:
        return [fail(check, f"it cannot be compared: {table.broken}", f"Then run feed attach {table.name} again.")]
    if not leads and (table.compared_at is None or table.doubts):
        return [warn(check, table.doubt or "its rows are not postings yet", "Start feed serve: it compares the table.")]
    if table.compared_at is not None:
        late = (datetime.now(UTC) - table.compared_at).total_seconds()
        if leads and table.read is None and late > 2 * every:
            found = f"it was last compared {late / 3600:.1f} h ago; FEED_ATTACHED_COMPARE_EVERY is {every:.0f} s"
            return [warn(check, found, "See the leader's log.")]
    if table.doubts:
        return [warn(check, f"it has to be compared again: {table.doubt}", "feed serve does so; if not, see its log.")]
    return []


async def _healthy(connection: Any, table: AttachedTable) -> str:
    if table.compared_at is None:
        return f"its rows become postings; {table.read or 0:,} have been read"
    row = await connection.fetchrow(_WITHOUT, table.number)
    without = f"; {table.bad:,} rows make no posting, most because {row['why']}" if row is not None else ""
    return f"{table.rows:,} rows, {table.open:,} open postings, compared {table.compared_at:%Y-%m-%d %H:%M}Z{without}"


def _enable(relation: Relation, names: Sequence[str], *, always: bool = False) -> str:
    """Return the statements that make triggers of one relation fire; its owner's fire for replicas as well."""
    mode = "ENABLE ALWAYS" if always or relation.owned else "ENABLE"
    only = "ONLY " if relation.kind == "r" else ""
    return " ".join(f"ALTER TABLE {only}{relation.name} {mode} TRIGGER {name};" for name in names)


def _check(table: AttachedTable) -> str:
    return f"attached {table.name or table.spec.table}"

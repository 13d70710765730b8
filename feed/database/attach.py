"""Attach a table, keep its triggers up to date, and detach it."""

from functools import partial
from typing import Any

from feed.database.attachment_ddl import AttachmentDdl, Relation, quoted
from feed.database.attachment_plan import plan
from feed.database.attachments import load
from feed.database.connect import translated
from feed.database.locking import unobtrusively
from feed.database.table_shape import require
from feed.errors import ConfigurationError, NotFound
from feed.model.attachment import AttachmentSpec
from feed.model.table import TableShape

_CLOSED_AT_ONCE = 1000
"""Postings that `detach` closes in one transaction."""


async def attach(connection: Any, schema: str, spec: AttachmentSpec, shape: TableShape, *, adopt: bool = False) -> int:
    """Attach a table, and return the attachment's number; its rows become postings by `feed.database.comparison`.

    `adopt` takes over postings that have the source already. Raises ConfigurationError where the table is attached already
    or the source is in use, DatabaseRefused where rights are missing, DatabaseUnavailable where a lock was not to be had:
    then the leader goes on with it, or the next call of `equip`.
    """
    require(shape)
    with translated():
        taken = await connection.fetchrow(
            "SELECT relation::text, source FROM attachment WHERE relation = $1::bigint::oid OR source = $2",
            shape.oid, spec.source,
        )  # fmt: skip
        if taken is not None:
            raise ConfigurationError(f"{taken['relation']} is attached already, as the source {taken['source']}.")
        if not adopt and await connection.fetchval("SELECT EXISTS (SELECT FROM job WHERE source = $1)", spec.source):
            raise ConfigurationError(
                f"there are postings with the source {spec.source} already. Choose another one by --source; or take them "
                "over by --adopt: those whose external_id is no key of the table are then closed."
            )
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM job WHERE source = $1 AND external_id IS NULL)", spec.source
        ):
            raise ConfigurationError(
                f"there are postings with the source {spec.source} that have no external_id, which cannot be taken over. "
                "Choose another one by --source."
            )
        first, *_ = await plan(connection, schema, spec, shape)

        async def record() -> None:
            for statement in first:
                await connection.execute(statement)

        await unobtrusively(connection, f"the attachment of {shape.name}", record, "attach the table again")
        number = int(await connection.fetchval("SELECT id FROM attachment WHERE source = $1", spec.source))
    await equip(connection, schema, number)
    return number


async def equip(connection: Any, schema: str, number: int, attempts: int | None = None) -> list[str]:
    """Create the triggers and their functions that are missing or out of date, and return what was changed, by relation.

    A relation with new triggers, or one that came or went since, makes a comparison necessary.
    """
    with translated():
        attached = await load(connection, schema, number)
        if attached is None or attached.row["ending"]:
            return []
        changed: list[str] = []
        bodies = {
            row["name"]: row["body"]
            for row in await connection.fetch(
                "SELECT p.proname::text AS name, p.prosrc AS body FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
                "AND p.proname LIKE $2",
                quoted(schema), f"capture\\_{number}\\_%",
            )
        }  # fmt: skip
        there = {
            (row["oid"], row["name"], row["function"])
            for row in await connection.fetch(
                "SELECT t.tgrelid::bigint AS oid, t.tgname::text AS name, p.proname::text AS function "
                "FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
                "WHERE NOT t.tgisinternal AND t.tgrelid = ANY ($1::bigint[]::oid[]) AND t.tgenabled <> 'D'",
                [one.oid for one in attached.relations],
            )
        }  # fmt: skip
        for relation in attached.relations:
            function = f"capture_{number}_{relation.oid}"
            if bodies.get(function) != attached.ddl.capture_body(relation):
                for statement in attached.ddl.capture_function(relation):
                    await connection.execute(statement)
                changed.append(relation.name)
            operations = ("insert", "update", "delete", "truncate")
            if any((relation.oid, attached.ddl.trigger_name(one), function) not in there for one in operations):
                create = partial(_create_triggers, connection, attached.ddl, relation)
                what = f"the triggers on {relation.name}"
                await unobtrusively(connection, what, create, "run feed attach again", attempts)
                changed.append(relation.name)
        oids = [one.oid for one in attached.relations]
        if changed or oids != [int(one) for one in attached.row["relations"]]:
            why = f"triggers were made on {', '.join(dict.fromkeys(changed))}" if changed else "its partitions changed"
            async with connection.transaction():
                await connection.execute(
                    "UPDATE attachment SET relations = $2::bigint[]::oid[] WHERE id = $1", number, oids
                )
                await connection.execute(
                    "INSERT INTO attachment_doubt (attachment, why) VALUES ($1, $2)", number, why[:500]
                )
        return list(dict.fromkeys(changed))


async def _create_triggers(connection: Any, ddl: AttachmentDdl, relation: Relation) -> None:
    for statement in ddl.triggers(relation):
        await connection.execute(statement)


async def detach(connection: Any, schema: str, number: int, *, keep: bool = False) -> int:
    """Drop everything that was created for a table, and close its postings; return how many were closed.

    `keep` leaves the postings as they are: from then on they are written like feed's own. Whatever interrupts it, the next
    call goes on. Raises NotFound where there is no such attachment, DatabaseUnavailable where a lock was not to be had.
    """
    with translated():
        row = await connection.fetchrow("UPDATE attachment SET ending = true WHERE id = $1 RETURNING source", number)
        if row is None:
            raise NotFound("there is no such attached table")
        functions = await connection.fetch(
            "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
            "AND p.proname LIKE $2 ORDER BY p.proname",
            quoted(schema), f"capture\\_{number}\\_%",
        )  # fmt: skip
        for function in functions:  # with its triggers, also where the table is somebody else's
            drop = partial(connection.execute, f"DROP FUNCTION {function['name']} CASCADE")
            await unobtrusively(connection, "the end of the triggers", drop, "run feed detach again")
        while await connection.fetchval(
            "SELECT EXISTS (SELECT FROM inbox i WHERE i.origin = $1::integer::oid)", number
        ):
            await connection.fetchrow("SELECT * FROM advance(1000)")
        closed = 0 if keep else await _close(connection, row["source"])

        async def forget() -> None:
            await connection.execute("SELECT FROM state FOR UPDATE")
            await connection.execute("DELETE FROM attachment WHERE id = $1", number)
            await connection.execute("DELETE FROM attachment_doubt WHERE attachment = $1", number)
            await connection.execute("SELECT guard_mirrored()")
            for name in await connection.fetch(
                "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
                "AND p.proname ~ $2 ORDER BY p.proname DESC",
                quoted(schema), f"^(posting_of|key_of|map)_{number}_",
            ):  # fmt: skip
                await connection.execute(f"DROP FUNCTION {name['name']}")

        await unobtrusively(connection, "the end of the attachment", forget, "run feed detach again")
        return closed


async def _close(connection: Any, source: str) -> int:
    closed = 0
    while True:
        async with connection.transaction():
            await connection.execute("SELECT set_config('feed.detach', 'on', true)")
            status = await connection.execute(
                "UPDATE job SET closed_at = clock_timestamp() WHERE id IN (SELECT j.id FROM job j WHERE j.source = $1 "
                "AND j.closed_at IS NULL LIMIT $2)",
                source, _CLOSED_AT_ONCE,
            )  # fmt: skip
        made = int(status.split()[-1])
        closed += made
        if made < _CLOSED_AT_ONCE:
            return closed

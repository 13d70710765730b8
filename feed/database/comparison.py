"""Comparing an attached table with its postings: how they are made at first, and how what capture did not see is found."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import asyncpg
import structlog

from feed.database.attachments import Attached, load
from feed.database.connect import LOST, translated
from feed.database.table_shape import describe
from feed.settings.log import LogSettings

log = structlog.get_logger(__name__)

_FIRST, _FEWEST, _MOST = 200, 100, 2_000
"""Rows that one transaction compares: at first, at least, and at most."""
_LONGEST = 0.04
"""Seconds that one transaction may take, since the log stands still meanwhile: longer ones are followed by smaller ones."""
_SILENCE = 2.0
"""Seconds after which the database ends a transaction from which it hears nothing (a process that was stopped, a dead link):
the log stands still meanwhile."""
_WAIT = 0.1
"""Seconds until the next attempt, where nothing can be compared right now."""
_BAD = 1_000
"""Rows that the map fails on after which a comparison is given up."""

_RECONCILE = "SELECT * FROM reconcile($1, $2, $3::text[], $4)"
_FORGET = """
DELETE FROM attachment_doubt WHERE attachment = $1 AND id <= (
  SELECT d.id FROM attachment_doubt d WHERE d.attachment = $1 ORDER BY d.id DESC OFFSET 100 LIMIT 1)
"""
"""Of a table that cannot be compared, only the newest doubts are kept: a write that is not captured leaves one each time."""
_SAVE = "UPDATE attachment SET pass = $2 WHERE id = $1"
_END = """
UPDATE attachment SET pass = NULL, compared_at = CASE WHEN $3::text IS NULL THEN clock_timestamp() ELSE compared_at END,
                      rows = CASE WHEN $3 IS NULL THEN $2 ELSE rows END, broken = $3
 WHERE id = $1
"""
_FAILED = """
INSERT INTO attachment_bad AS b (attachment, key, why) SELECT $1, left($2, 500), $3
 WHERE (SELECT count(*) FROM attachment_bad c WHERE c.attachment = $1) < 1000
ON CONFLICT (attachment, key) DO UPDATE SET why = excluded.why, at = excluded.at
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the comparison of one table has come. The database keeps it, so that anybody can go on with it."""

    phase: Literal["rows", "gone", "done"] = "rows"
    """First the rows of the table, then the postings whose rows are gone."""
    place: list[str] | None = None
    """The last row's key, or the last posting's; None at the beginning of a phase."""
    read: int = 0
    """Rows of the table that were read."""
    made: int = 0
    """Events that this made."""
    bad: int = 0
    """Rows that the map failed on."""


async def compare(
    connection: Any, schema: str, number: int, settings: LogSettings, told: Callable[[Comparison], None] | None = None
) -> Comparison | None:
    """Compare a table with its postings, or go on with that, to the end; None where it was detached, or cannot be compared.

    Between two transactions others have the database for as long as the last one took. `told` is told how far it has come.
    Raises DatabaseUnavailable where the connection is lost.
    """
    most, loop = _FIRST, asyncio.get_running_loop()
    with translated():
        attached = await _begin(connection, schema, number)
        while attached is not None:
            began = loop.time()
            try:
                going, waits = await _step(connection, attached, most, settings)
            except LOST:
                raise
            except asyncpg.PostgresError as error:
                if connection.is_closed():
                    raise
                before, attached = attached, await load(connection, schema, number)
                if attached is None or attached.spec != before.spec:  # a column or the table was renamed meanwhile
                    continue
                if most > 1:  # a row that the map fails on is somewhere in there
                    most = max(1, most // 8)
                    continue
                going, waits = await _skip(connection, attached, error), False
            if going is None:
                return None
            took = loop.time() - began
            if told is not None:
                told(going)
            if going.phase == "done":
                return going
            most = max(_FEWEST, most // 2) if took > _LONGEST else min(_MOST, most * 2)
            await asyncio.sleep(_WAIT if waits else took)
    return None


async def _begin(connection: Any, schema: str, number: int) -> Attached | None:
    """Return the attachment, or None where its table cannot be compared: it says then why."""
    attached = await load(connection, schema, number)
    if attached is None:
        await _give_up(connection, number, "the table is gone: run feed detach")
        return None
    if attached.missing:
        gone = ", ".join(attached.missing)
        await _give_up(
            connection, number, f"the table has no column {gone} any more, which the map reads: give a new map"
        )
        return None
    shape = await describe(connection, attached.spec.table)
    if shape.row_security is not None or shape.grants:
        await _give_up(connection, number, shape.row_security or f"a right is missing: {' '.join(shape.grants)}")
        return None
    return attached


async def _step(
    connection: Any, attached: Attached, most: int, settings: LogSettings
) -> tuple[Comparison | None, bool]:
    """Compare the next rows in one transaction; the second value says that nothing can be compared right now."""
    number = attached.number
    async with connection.transaction():
        going = await _going(connection, number)
        if going is None:
            return None, False
        query = (
            attached.ddl.rows_query(attached.types)
            if going.phase == "rows"
            else attached.ddl.gone_query(attached.types)
        )
        try:
            async with connection.transaction():
                row = await connection.fetchrow(_RECONCILE, number, query, going.place, most)
        except asyncpg.CheckViolationError as error:
            if error.table_name != "log":
                raise
            await connection.execute("SELECT extend_log($1, $2)", settings.partition, settings.partitions_ahead)
            return going, True
        going = replace(going, place=row["place"], made=going.made + row["made"])
        if going.phase == "rows":
            going = replace(going, read=going.read + row["read"])
        if row["read"] < most and not row["waits"]:
            going = replace(going, phase="gone" if going.phase == "rows" else "done", place=None)
        await _save(connection, number, going)
        return going, bool(row["waits"])


async def _skip(connection: Any, attached: Attached, error: asyncpg.PostgresError) -> Comparison | None:
    """Note the row that the map fails on, and go on behind it."""
    number = attached.number
    async with connection.transaction():
        going = await _going(connection, number)
        if going is None:
            return None
        if going.phase == "gone" and isinstance(error, asyncpg.DataError):  # its external id cannot be a key
            query = attached.ddl.next_mirrored_query()
            closed = await connection.fetchrow(_RECONCILE, number, query, going.place, 1)
            going = replace(going, place=closed["place"], made=going.made + closed["made"])
            await _save(connection, number, going)
            return going
        try:
            async with connection.transaction():
                row = await connection.fetchrow(attached.ddl.key_query(attached.types), going.place, 1)
        except asyncpg.SyntaxOrAccessError:  # a function of the map is gone
            row = None
        if row is None or going.phase != "rows" or going.bad >= _BAD:
            log.error("an attached table cannot be compared", table=attached.spec.table, error=str(error))
            await _give_up(connection, number, f"the map fails: {error}")
            return None
        await connection.execute(_FAILED, number, row["posting"], str(error))
        going = replace(going, place=row["place"], bad=going.bad + 1, read=going.read + 1)
        await _save(connection, number, going)
        return going


async def _going(connection: Any, number: int) -> Comparison | None:
    """Return how far the comparison has come, and keep others from comparing the same table until the transaction ends.

    Where none goes on, it begins; None where the table was detached. The lock is a weak one: advance(), for which
    reconcile() waits then, refers to the row from attachment_bad.
    """
    await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {round(_SILENCE * 1000)}")
    row = await connection.fetchrow("SELECT ending, pass FROM attachment WHERE id = $1 FOR NO KEY UPDATE", number)
    if row is None or row["ending"]:
        return None
    if row["pass"] is not None:
        return Comparison(**json.loads(row["pass"]))
    await connection.execute("SELECT FROM state FOR UPDATE")  # first: advance() holds it when it notes rows there
    await connection.execute("DELETE FROM attachment_bad WHERE attachment = $1", number)
    await connection.execute("UPDATE attachment_doubt SET looked_into = true WHERE attachment = $1", number)
    return Comparison()


async def _give_up(connection: Any, number: int, why: str) -> None:
    """Note why a table cannot be compared."""
    await connection.execute(_END, number, 0, why)
    await connection.execute(_FORGET, number)


async def _save(connection: Any, number: int, going: Comparison) -> None:
    if going.phase != "done":
        await connection.execute(_SAVE, number, json.dumps(asdict(going)))
        return
    await connection.execute(_END, number, going.read, None)
    await connection.execute("DELETE FROM attachment_doubt WHERE attachment = $1 AND looked_into", number)

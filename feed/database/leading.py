"""Who leads: the session that holds the sequencer's lock, of all processes of a feed."""

from dataclasses import dataclass
from typing import Any

_LEADER = """
SELECT a.pid, coalesce(host(a.client_addr), 'this machine') AS address
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.classid::bigint = hashtext('feed sequencer') & 4294967295
   AND l.objid::bigint = hashtext($1) & 4294967295
"""


@dataclass(frozen=True, slots=True)
class Leader:
    """The session of the process that leads."""

    pid: int
    """Of the database's backend."""
    address: str
    """Of the machine on which the process runs."""


async def leader(connection: Any, schema: str) -> Leader | None:
    """Return the leader of the feed in this schema, or None where no process leads."""
    row = await connection.fetchrow(_LEADER, schema)
    return None if row is None else Leader(row["pid"], row["address"])

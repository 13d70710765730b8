"""Connections: tuned, bounded in time, and with errors that say what to change."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from feed.errors import DatabaseRefused, DatabaseUnavailable, WrittenElsewhere
from feed.settings.database import DatabaseSettings

# What a lost or unwilling database raises; everything else is a fault of ours.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)

MIRRORED = "FD001"
"""The SQLSTATE by which `job` refuses to change a posting of an attached table (migrations/0010_attach.sql)."""


def _server_settings(settings: DatabaseSettings, name: str) -> dict[str, str]:
    return {
        "search_path": f'"{settings.schema_name}", pg_temp',
        "application_name": f"feed {name}",
        "TimeZone": "UTC",
        "jit": "off",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }


def _keep_alive(connection: Any) -> None:
    """Let the kernel notice a black-holed peer within about 16 s; asyncpg offers no setting for it (POSTGRES.md, 7)."""
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 16_000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def connect(
    settings: DatabaseSettings, dsn: str, name: str, **server: str
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a connection of the caller's own (a listener or a leader must never come from a pool).

    Raises DatabaseUnavailable where nobody answers, DatabaseRefused where a pooler or a right is in the way.
    """
    with translated():
        connection = await asyncpg.connect(
            dsn, timeout=settings.connect_timeout, command_timeout=settings.query_timeout,
            server_settings=_server_settings(settings, name) | server,
        )  # fmt: skip
    _keep_alive(connection)
    return connection


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" in str(error):
            raise DatabaseRefused(POOLER) from error
        raise DatabaseUnavailable(f"what stands before the database does not let us through: {error}") from error
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError) as error:
        raise DatabaseRefused(POOLER) from error
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise DatabaseRefused(
            f"the database does not let us in: {error}. Check the user and password in DATABASE_URL."
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseRefused(f"{error}. Create it, or name another one in DATABASE_URL.") from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError) as error:
        raise DatabaseRefused(f"the feed's schema is not (wholly) there: {error}. Run feed migrate.") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseRefused(f"the role lacks a right: {error}. {RIGHTS}") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == MIRRORED:
            raise WrittenElsewhere(str(error)) from error
        if isinstance(error, LOST):
            raise _unavailable(error) from error
        raise
    except LOST as error:
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"the database does not answer: {str(error) or type(error).__name__}")


RIGHTS = (
    "feed needs a role that may connect and that owns its schema; as an administrator run: "
    "CREATE SCHEMA feed AUTHORIZATION <role>; (its name is FEED_SCHEMA)."
)
POOLER = (
    "DATABASE_URL goes through a pooler that shares connections between transactions (PgBouncer, Supavisor, Odyssey, ...), "
    "where LISTEN hears nothing. Give feed the database's own address (usually port 5432), or a pool in session mode."
)


@asynccontextmanager
async def owned(
    settings: DatabaseSettings, dsn: str, name: str, **server: str
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """`connect`, and on leaving terminate: close() waits for an answer that a dead link never gives."""
    connection = await connect(settings, dsn, name, **server)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def pool(settings: DatabaseSettings, dsn: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Connections for reads and writes; opened on first use, so it can be made while the database is down."""

    async def ready(connection: Any) -> None:
        _keep_alive(connection)

    async def as_it_is(_: Any) -> None:
        """Ask for nothing: asyncpg has rolled back what was open, and nothing else here outlives a transaction.

        Its own question (UNLISTEN, RESET ALL, ...) is a second round trip for each one that a statement takes.
        """

    made = asyncpg.create_pool(
        dsn, min_size=0, max_size=settings.pool_size, timeout=settings.connect_timeout,
        command_timeout=settings.query_timeout, max_inactive_connection_lifetime=60.0,
        # Planned once for each connection and form of a filter, not at each of the first five times: a list takes
        # longer to plan than to read.
        server_settings=_server_settings(settings, "pool") | {"plan_cache_mode": "force_generic_plan"}, init=ready,
        reset=as_it_is,
    )  # fmt: skip
    await made
    try:
        yield made
    finally:
        made.terminate()

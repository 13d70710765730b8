"""Who is measured side by side: the feed, with and without its wire, and its peers."""

import dataclasses
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import jwt

from feed.access.key import new_key
from feed.bench.fanout import spec_of
from feed.bench.spec import Http, Spec
from feed.bench.writer import Writer, new_run, sql_writer
from feed.database.migrate import migrate
from feed.serving.certificate import self_signed
from feed.settings.settings import load_settings
from tests.bench.machine import Cores
from tests.bench.publisher import publishing
from tests.bench.services import Server, feed, nchan, nchan_module, python_app

Mode = tuple[Http, int]
"""A protocol, and streams a connection."""

H1: Mode = ("http/1.1", 1)
H2: Mode = ("h2", 1)
SHARED: Mode = ("h2", 100)


def mode_name(mode: Mode) -> str:
    """As the tables say it."""
    http, streams = mode
    return "HTTP/1.1" if http == "http/1.1" else "HTTP/2" if streams == 1 else f"HTTP/2 x {streams}"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and the protocols it is measured on; `spec` and `writer` fit it. `absent` says why it cannot take part."""

    name: str
    modes: tuple[Mode, ...]
    start: Callable[[str, Cores], AbstractAsyncContextManager[Server]]
    spec: Callable[[Server, str, int, Mode, Cores], Spec]
    writer: Callable[[Server, str], AbstractAsyncContextManager[Writer]]
    absent: str | None = None


def _feed_spec(server: Server, run: str, subscribers: int, mode: Mode, cores: Cores) -> Spec:
    spec = spec_of(server.url, run, subscribers, *mode)
    return dataclasses.replace(spec, cores=cores.load, patience=60, headers=server.headers)


@asynccontextmanager
async def _feed_writer(_: Server, dsn: str) -> AsyncIterator[Writer]:
    async with sql_writer(dsn, new_run(), close=False) as writer:
        yield writer


def _peer_spec(separator: str = "\n\n") -> Callable[[Server, str, int, Mode, Cores], Spec]:
    def spec(server: Server, run: str, subscribers: int, mode: Mode, cores: Cores) -> Spec:
        url = server.url_h2 if mode[0] == "h2" else server.url
        made = spec_of(url, run, subscribers, *mode, path="/stream")
        return dataclasses.replace(made, live=": hi", separator=separator, cores=cores.load, patience=60)

    return spec


def _peer_writer(*, raw: bool) -> Callable[[Server, str], AbstractAsyncContextManager[Writer]]:
    @asynccontextmanager
    async def writer(server: Server, _: str) -> AsyncIterator[Writer]:
        async with publishing(server.plain or server.url, raw=raw) as made:
            yield made

    return writer


def _python(server: str, module: str) -> Callable[[str, Cores], AbstractAsyncContextManager[Server]]:
    return lambda _, cores: python_app(server, f"tests.bench.peers.{module}:app", cores)


@asynccontextmanager
async def _with_keys(dsn: str, cores: Cores) -> AsyncIterator[Server]:
    """A feed that asks readers for API keys, and the header with one that is good."""
    key = new_key()
    await migrate(load_settings(), dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO feed.api_key (id, digest, scope, filter, note) VALUES ($1, $2, 'read', '', 'bench')",
            key.id, key.digest,
        )  # fmt: skip
    finally:
        await connection.close()
    async with feed(dsn, cores, reading="keys") as server:
        yield dataclasses.replace(server, headers=(("authorization", f"Bearer {key.text}"),))


@asynccontextmanager
async def _with_tokens(dsn: str, cores: Cores) -> AsyncIterator[Server]:
    """A feed that asks readers for signed tokens (HS256), and the header with one that is good."""
    secret = secrets.token_hex(32)
    now = int(time.time())
    token = jwt.encode({"sub": "bench", "scope": "read", "iat": now, "exp": now + 86_400}, secret, "HS256")
    async with feed(dsn, cores, reading="keys", jwt_algorithm="HS256", jwt_key=secret) as server:
        yield dataclasses.replace(server, headers=(("authorization", f"Bearer {token}"),))


FEED = Contender("feed", (H1, H2, SHARED), feed, _feed_spec, _feed_writer)
GENERATOR = Contender(
    "feed, generator path", (H1, H2, SHARED), lambda dsn, cores: feed(dsn, cores, wire=0), _feed_spec, _feed_writer
)
WITH_KEYS = Contender("feed, API keys", (H1, H2, SHARED), _with_keys, _feed_spec, _feed_writer)
WITH_TOKENS = Contender("feed, signed tokens", (H1, H2, SHARED), _with_tokens, _feed_spec, _feed_writer)
NCHAN = Contender(
    "nchan", (H1, H2, SHARED), lambda _, cores: nchan(cores), _peer_spec(), _peer_writer(raw=True),
    None if nchan_module() else "not installed",
)  # fmt: skip
NAIVE_HYPERCORN = Contender(
    "queues + sse-starlette, Hypercorn", (H1, H2, SHARED), _python("hypercorn", "naive"), _peer_spec("\r\n\r\n"),
    _peer_writer(raw=False),
)  # fmt: skip
NAIVE_UVICORN = Contender(
    "queues + sse-starlette, uvicorn",
    (H1,),
    _python("uvicorn", "naive"),
    _peer_spec("\r\n\r\n"),
    _peer_writer(raw=False),
)
FASTAPI_HYPERCORN = Contender(
    "fastapi.sse, Hypercorn",
    (H1, H2, SHARED),
    _python("hypercorn", "fastapi_sse"),
    _peer_spec(),
    _peer_writer(raw=False),
)
FASTAPI_UVICORN = Contender(
    "fastapi.sse, uvicorn", (H1,), _python("uvicorn", "fastapi_sse"), _peer_spec(), _peer_writer(raw=False)
)
DIRECT = Contender(
    "feed, hub fed directly", (H1, H2, SHARED), lambda _, cores: python_app("python", "tests.bench.peers.direct", cores),
    _feed_spec,
    _peer_writer(raw=False),
)  # fmt: skip
FLOOR = Contender(
    "a loop of write(2)", (H1,), lambda _, cores: python_app("python", "tests.bench.peers.floor", cores), _peer_spec(),
    _peer_writer(raw=False),
)  # fmt: skip


@asynccontextmanager
async def _certificate() -> AsyncIterator[tuple[Path, Path]]:
    """A certificate and its key, which readers that start meanwhile believe."""
    before = os.environ.get("SSL_CERT_FILE")
    with tempfile.TemporaryDirectory(prefix="feed-bench-") as folder:
        made = self_signed(Path(folder), "127.0.0.1")
        os.environ["SSL_CERT_FILE"] = str(made[0])
        try:
            yield made
        finally:
            os.environ.pop("SSL_CERT_FILE")
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before


@asynccontextmanager
async def _feed_tls(dsn: str, cores: Cores) -> AsyncIterator[Server]:
    async with _certificate() as (certfile, keyfile), feed(dsn, cores, certfile=certfile, keyfile=keyfile) as server:
        yield server


@asynccontextmanager
async def _nchan_tls(_: str, cores: Cores) -> AsyncIterator[Server]:
    async with _certificate() as certificate, nchan(cores, certificate) as server:
        yield server


FEED_TLS = dataclasses.replace(FEED, name="feed with TLS", modes=(H1, H2), start=_feed_tls)
NCHAN_TLS = dataclasses.replace(NCHAN, name="nchan with TLS", modes=(H1, H2), start=_nchan_tls)
BRIEF = tuple(
    dataclasses.replace(who, modes=tuple(mode for mode in who.modes if who.name == "feed" or mode != SHARED))
    for who in (FEED, NCHAN, NAIVE_HYPERCORN, NAIVE_UVICORN, FASTAPI_UVICORN)
)
"""Those whose figures say enough where each row takes long."""
ALL = (FEED, DIRECT, FLOOR, GENERATOR, NCHAN, NAIVE_HYPERCORN, NAIVE_UVICORN, FASTAPI_HYPERCORN, FASTAPI_UVICORN)

"""Nothing that lets somebody in is ever written down: not in a log of any level, not in an answer, whatever fails."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack, suppress
from typing import IO, Any

import asyncpg
import httpx

from feed.access.grant import Scope
from feed.access.key import Key, new_key
from feed.database.access import AccessStore
from feed.settings.settings import load_settings
from tests.conftest import run_server
from tests.processes import ROOT, serving
from tests.server.credentials import JOB, SECRET, asking, bearer, guarded, make_key, token

STREAM = "/v1/jobs/stream"


class Spoken:
    """Every credential that a test has sent."""

    def __init__(self) -> None:
        self.secrets: list[str] = []

    def add(self, *credentials: str) -> None:
        """Remember a credential; of keys and tokens, the part that nobody may know."""
        for one in credentials:
            self.secrets += [one, one[-24:], one.rpartition("_")[2] if "_" in one else one.rpartition(".")[2]]

    def check(self, said: str) -> None:
        """None of them is in what was said."""
        assert said
        for secret in self.secrets:
            if len(secret) >= 12:
                assert secret not in said


async def stream(client: httpx.AsyncClient, address: str, **more: Any) -> None:
    """Open a stream, see its first frames, and leave."""
    async with client.stream("GET", address, **more) as answer:
        async for _ in answer.aiter_raw():
            break


async def test_no_secret_is_in_a_line_of_any_log_whatever_was_sent(dsn: str) -> None:
    spoken = Spoken()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            serving(dsn, flags=("--host", "0.0.0.0"), jwt_algorithm="HS256", jwt_key=SECRET, log_level="debug")
        )
        pool = await stack.enter_async_context(
            asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings={"search_path": "feed"})
        )
        keys = [new_key() for _ in range(3)]
        for one in keys:
            await AccessStore(pool).add_key(one, Scope.WRITE)
        slip, whole = keys[0].text[:-1] + "_", token()
        texts = [
            *(one.text for one in keys), slip, new_key().text, whole, whole[:-3], token(exp=1), token(key="x" * 40),
            token(scope="none"), token(feed_filter="compny=x"), f"{whole}.x", "a-password-of-somebody",
        ]  # fmt: skip
        spoken.add(*texts)
        for http2 in (False, True):
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=service.url, trust_env=False, http1=not http2, http2=http2, timeout=60)
            )
            for text in texts[::4] if http2 else texts:
                headers = bearer(text)
                await client.get("/v1/jobs", headers=headers)
                await client.post("/v1/jobs", json=JOB | {"salary_min": "much"}, headers=headers)
                await client.post("/v1/jobs", content=b"{", headers=headers)
                await stream(client, STREAM, headers=headers)
                await client.get("/v1/jobs", headers={"Authorization": f"Basic {text}"})
                await client.get("/nowhere", headers=headers)
                await stream(client, f"{STREAM}?ticket={text}"[:200])
            for text in (keys[0].text, whole):
                cookie = (await client.post("/v1/session", headers=bearer(text))).cookies["feed_session"]
                client.cookies.clear()
                spoken.add(cookie)
                for value in (cookie, cookie[:-3], f"{cookie}x"):
                    sent = {"Cookie": f"feed_session={value}"}
                    await client.get("/v1/session", headers=sent)
                    await stream(client, STREAM, headers=sent)
                ticket = (await client.post("/v1/tickets", headers=bearer(text))).json()
                spoken.add(ticket["ticket"])
                await stream(client, ticket["url"])
                await stream(client, ticket["url"])
                await stream(client, f"{ticket['url']}x")
                await stream(client, ticket["url"], headers={"Last-Event-ID": "0"})
                await client.get(f"/v1/jobs?ticket={ticket['ticket']}")
                await client.delete("/v1/session", headers={"Cookie": f"feed_session={cookie}"})
        await AccessStore(pool).revoke_key(keys[1].id)
        # Faults of ours under them all: rows that nobody could have written, then tables that are not there.
        broken = new_key()
        await AccessStore(pool).add_key(broken, Scope.READ)
        ticket = (await client.post("/v1/tickets", headers=bearer(keys[0]))).json()
        spoken.add(broken.text, ticket["ticket"])
        await pool.execute("ALTER TABLE api_key DROP CONSTRAINT api_key_scope_check")
        await pool.execute("UPDATE api_key SET scope = 'nonsense' WHERE id = $1", broken.id)
        await pool.execute("UPDATE ticket SET holder = '{}'")
        assert (await client.get("/v1/jobs", headers=bearer(broken))).status_code == 500
        assert (await client.get(ticket["url"])).status_code == 500
        for table in ("api_key", "ticket", "secret"):
            await pool.execute(f"ALTER TABLE {table} RENAME TO hidden_{table}")
        failing = new_key().text
        spoken.add(failing)
        await client.get("/v1/jobs", headers=bearer(failing))
        await stream(client, STREAM, headers=bearer(failing))
        await client.post("/v1/tickets", headers=bearer(whole))
        await stream(client, ticket["url"])
    said = service.said.decode()
    assert service.logged("stream ended")
    assert said.count("Traceback") >= 2
    spoken.check(said + service.printed.decode())
    assert SECRET not in said


async def test_no_secret_is_in_an_answer_that_refuses_it(dsn: str) -> None:
    spoken = Spoken()
    async with run_server(guarded(dsn)) as running, asking(running) as client:
        for text in (new_key().text, (await make_key(running)).text[:-1] + "_", token(), "a-password-of-somebody"):
            spoken.add(text)
            for answer in (
                await client.get("/v1/jobs", headers=bearer(text)),
                await client.get(STREAM, headers=bearer(text)),
                await client.get("/v1/jobs", headers={"Cookie": f"feed_session={text}"}),
                await client.get(f"{STREAM}?ticket={text[:90]}"),
            ):
                assert answer.status_code == 401
                spoken.check(answer.text + str(answer.headers))


async def test_a_terminal_is_shown_no_local_variables_of_a_fault() -> None:
    """Tracebacks for people show more than those for files: what a function holds, credentials among it."""
    program = (
        "import structlog\n"
        "from feed.observability.logs import configure\n"
        "configure('debug')\n"
        "def fault(credential):\n"
        "    raise RuntimeError('a fault')\n"
        "try:\n"
        "    fault('-'.join(['a', 'secret', 'of', 'somebody']))\n"
        "except RuntimeError:\n"
        "    structlog.get_logger().exception('failed')\n"
    )
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT, stderr=theirs)
        os.close(theirs)
        said = await asyncio.to_thread(_all_of, terminal)
        assert await process.wait() == 0
    assert b"RuntimeError" in said
    assert b"a-secret-of-somebody" not in said


def _all_of(terminal: IO[bytes]) -> bytes:
    """What is written to a terminal until nobody has it open any more."""
    said = b""
    with suppress(OSError):  # how Linux says that it ended
        while piece := terminal.read(65536):
            said += piece
    return said


def test_values_that_hold_a_secret_do_not_show_it() -> None:
    key: Key = new_key()
    assert key.text not in repr(key) + repr([key]) + repr({"key": key})
    settings = load_settings(jwt_algorithm="HS256", jwt_key=SECRET)
    assert SECRET not in repr(settings) + str(settings) + str(settings.model_dump())

"""`feed doctor`: what is well is called so, what is not is named with what to do about it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from feed.access.grant import Scope
from feed.doctor import flow
from tests.conftest import Running, make_settings, run_server
from tests.postgres.events import Connection, add, opened
from tests.postgres.running import backends
from tests.server.examining import examined
from tests.server.operators import key_of
from tests.server.scripted import Answer, Script, feed, frame, problem, running
from tests.waiting import until

Found = dict[str, list[dict[str, str]]]


async def doctor(*arguments: str) -> tuple[int | None, Found, str]:
    """Run `feed doctor --json`: its exit code, the findings by check, and stderr."""
    async with feed("doctor", "--json", *arguments) as process:
        out, err = await process.communicate()
    findings: Found = {}
    for finding in json.loads(out) if out else ():
        findings.setdefault(finding["check"], []).append(finding)
    return process.returncode, findings, err.decode()


def bad(found: Found) -> list[str]:
    """The checks that failed."""
    return [name for name, findings in found.items() if any(one["verdict"] == "fail" for one in findings)]


async def test_a_healthy_service_fails_nothing(server: Running, dsn: str) -> None:
    code, found, err = await doctor(server.url, "--database-url", dsn)
    assert (code, bad(found), err) == (0, [], "")
    assert found.keys() >= {
        "database", "encoding", "rights", "schema", "triggers", "sequencer", "transactions", "retention",
        "notifications", "connections", "clock", "keys", "processes", "fan-out",
    }  # fmt: skip
    assert found.keys() >= {
        "name", "connection", "feed", "ready", "version", "server clock", "stream", "client address",
        "frames, HTTP/1.1", "frames, HTTP/2",
    }  # fmt: skip
    assert "led from" in found["sequencer"][0]["found"]
    assert re.match("(io_uring|send|python): ", found["fan-out"][0]["found"])
    assert found["frames, HTTP/2"][0]["verdict"] == "ok"
    assert "HTTP/2)" in found["frames, HTTP/2"][0]["found"]
    assert "127.0.0.1" in found["client address"][0]["found"]


async def test_it_is_a_table_for_people(server: Running, monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    async with feed("doctor") as process:
        out, err = await process.communicate()
    lines = out.decode().splitlines()
    assert (process.returncode, err) == (0, b"")
    assert lines[0].split() == ["CHECK", "VERDICT", "FOUND", "WHAT", "TO", "DO"]
    assert any(line.split()[:2] == ["triggers", "ok"] for line in lines)
    assert "\x1b" not in out.decode()


async def test_a_disabled_trigger_is_found_and_the_advice_mends_it(database: Connection, dsn: str) -> None:
    await database.execute("ALTER TABLE job DISABLE TRIGGER feed_update")
    code, found, _ = await doctor("--database-url", dsn)
    assert (code, bad(found)) == (1, ["triggers"])
    (finding,) = found["triggers"]
    assert "feed.job: feed_update" in finding["found"]
    async with opened(dsn, "public") as administrator:
        await administrator.execute(finding["todo"])
    assert (await doctor("--database-url", dsn))[0] == 0


async def test_a_trigger_that_is_gone_is_found(database: Connection, dsn: str) -> None:
    await database.execute("DROP TRIGGER feed_delete ON job")
    found = await examined(dsn)
    assert found["triggers"][0].verdict == "fail"
    assert "feed.job lacks feed_delete" in found["triggers"][0].found
    await database.execute(
        "DROP TRIGGER feed_insert ON job; DROP TRIGGER feed_update ON job; DROP TRIGGER feed_truncate ON job"
    )
    assert "feed.job has no triggers" in (await examined(dsn))["triggers"][0].found


async def test_a_stopped_sequencer_is_found_where_something_waits(database: Connection, dsn: str) -> None:
    idle = (await examined(dsn))["sequencer"][0]
    assert (idle.verdict, "no process leads" in idle.found) == ("warn", True)
    await add(database, "waits")
    await database.execute("UPDATE inbox SET at = at - interval '1 minute'")
    code, found, _ = await doctor("--database-url", dsn)
    assert (code, bad(found)) == (1, ["sequencer"])
    assert "1 changes wait" in found["sequencer"][0]["found"]
    assert "feed serve" in found["sequencer"][0]["todo"]


async def test_a_leader_that_does_nothing_is_named(database: Connection, dsn: str) -> None:
    await database.execute("SELECT pg_advisory_lock(hashtext('feed sequencer'), hashtext('feed'))")
    await add(database, "waits")
    await database.execute("UPDATE inbox SET at = at - interval '1 minute'")
    finding = (await examined(dsn))["sequencer"][0]
    assert finding.verdict == "fail"
    assert f"pg_terminate_backend({await database.fetchval('SELECT pg_backend_pid()')})" in finding.todo


async def test_forgotten_transactions_are_named(
    database: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_LONG", 0.0)
    await database.execute("BEGIN; SET LOCAL feed.doorbell = off")
    await add(database, "prepared")
    await database.execute("PREPARE TRANSACTION 'o''clock'")
    async with opened(dsn) as writer:
        await writer.execute("SET application_name = 'careless'; BEGIN")
        await add(writer, "idle")
        prepared, idle = (await examined(dsn))["transactions"]
        assert (prepared.verdict, idle.verdict) == ("warn", "warn")
        assert "careless" in idle.found
        await database.execute(prepared.todo.split(" or ")[1])
        await writer.execute("ROLLBACK")
    assert (await examined(dsn))["transactions"][0].verdict == "ok"


async def test_a_database_without_a_feed_is_told_to_migrate(cluster: Any) -> None:
    code, found, _ = await doctor("--database-url", cluster.dsn("template1"))
    assert (code, bad(found)) == (1, ["schema"])
    assert "feed migrate" in found["schema"][0]["todo"]


async def test_migrations_that_are_missing_are_named(database: Connection, dsn: str) -> None:
    await database.execute("DELETE FROM migration WHERE version = 4")
    (finding,) = (await examined(dsn))["schema"]
    assert (finding.verdict, finding.found) == ("fail", "not applied: 0004 fold")
    await database.execute("UPDATE migration SET checksum = 'x' WHERE version = 2")
    assert "0002 was applied in another form" in (await examined(dsn))["schema"][0].found


async def test_old_events_and_a_full_log_are_found(database: Connection, dsn: str) -> None:
    await add(database, "old")
    await database.fetch("SELECT * FROM advance(10)")
    await database.execute("UPDATE log SET at = at - interval '30 days'")
    (late,) = (await examined(dsn))["retention"]
    assert (late.verdict, "Retention is behind" in late.todo) == ("warn", True)
    await database.execute("UPDATE log SET at = clock_timestamp(); DROP TABLE log_250001, log_500001")
    (full,) = (await examined(dsn, sequencer_batch=250_000))["retention"]
    assert full.verdict == "fail"


async def test_nobody_can_write_without_a_key(server: Running, dsn: str) -> None:
    (finding,) = (await examined(dsn, host="0.0.0.0"))["keys"]
    assert (finding.verdict, "feed key create --scope write" in finding.todo) == ("warn", True)
    await key_of(server, Scope.WRITE)
    assert (await examined(dsn, host="0.0.0.0"))["keys"][0].verdict == "ok"


async def test_a_role_without_rights_is_told_which(cluster: Any, database: Connection, dsn: str) -> None:
    await database.execute(
        "CREATE ROLE poor LOGIN; GRANT USAGE ON SCHEMA feed TO poor; GRANT SELECT ON feed.migration TO poor"
    )
    try:
        findings = (await examined(dsn.replace("postgres@", "poor@")))["rights"]
        assert {finding.verdict.value for finding in findings} == {"fail"}
        assert "poor may not create anything in the schema feed" in findings[0].found
        assert "does not own" in findings[1].found
    finally:
        await database.execute("DROP OWNED BY poor; DROP ROLE poor")


async def test_a_database_that_is_away_is_one_finding() -> None:
    code, found, _ = await doctor("--database-url", "postgresql://postgres@127.0.0.1:1/x")
    assert (code, list(found)) == (1, ["database", "fan-out"])
    assert "does not answer" in found["database"][0]["found"]


async def test_without_any_database_it_says_how_to_give_one(tmp_path: Path) -> None:
    code, found, _ = await doctor("--data-dir", str(tmp_path))
    assert (code, list(found)) == (1, ["database"])
    assert "DATABASE_URL" in found["database"][0]["todo"]


@asynccontextmanager
async def holding(target: str, seconds: float) -> AsyncIterator[str]:
    """A proxy that passes on what comes from `target` once nothing has come for so long: frames arrive together."""
    host, port = target.removeprefix("http://").split(":")
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        back, there = await asyncio.open_connection(host, int(port))

        async def up() -> None:
            while data := await reader.read(65536):
                there.write(data)
            there.close()

        upward = asyncio.create_task(up())
        held = b""
        try:
            while True:
                try:
                    async with asyncio.timeout(seconds if held else None):
                        data = await back.read(65536)
                except TimeoutError:
                    writer.write(held)
                    held = b""
                    continue
                held += data
                if not data:
                    break
            writer.write(held)
        except asyncio.CancelledError:
            pass
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            writer.transport.abort()
            there.transport.abort()
            tasks.discard(task)

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_proxy_that_holds_frames_back_is_found(server: Running) -> None:
    async with holding(server.url, 0.6) as url:
        code, found, err = await doctor(url)
    assert code == 1, err
    assert set(bad(found)) == {"frames, HTTP/1.1", "frames, HTTP/2"}
    (finding,) = found["frames, HTTP/1.1"]
    assert "held back by" in finding["found"]
    for setting in ("proxy_buffering off", "flush_interval -1", "HAProxy"):
        assert setting in finding["todo"]


def certificate(folder: Path, days: float) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority and ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    certfile.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


@pytest.mark.parametrize(("days", "verdict"), [(-1, "fail"), (10, "warn"), (90, "ok")])
async def test_the_end_of_a_certificate_is_seen_coming(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, verdict: str
) -> None:
    certfile, keyfile = certificate(tmp_path, days)
    monkeypatch.setenv("SSL_CERT_FILE", str(certfile))
    async with run_server(make_settings(dsn, certfile=certfile, keyfile=keyfile)) as running:
        code, found, err = await doctor(running.url)
    assert code == (1 if verdict == "fail" else 0), err
    (finding,) = found["TLS"]
    assert finding["verdict"] == verdict
    if verdict == "fail":
        assert "certificate has expired" in finding["found"]
        assert "valid until" in finding["found"]
    else:
        assert "TLSv1.3" in finding["found"]
        assert found["ALPN"][0]["found"] == "h2"
        assert found["frames, HTTP/2"][0]["verdict"] == "ok"


async def test_a_certificate_that_nobody_vouches_for_is_no_good(dsn: str, tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path, 90)
    async with run_server(make_settings(dsn, certfile=certfile, keyfile=keyfile)) as running:
        code, found, _ = await doctor(running.url)
    assert (code, bad(found)) == (1, ["TLS"])
    assert "SSL_CERT_FILE" in found["TLS"][0]["todo"]


async def test_a_key_opens_the_stream_and_its_lack_is_a_warning(dsn: str) -> None:
    async with run_server(make_settings(dsn, reading="keys", writing="keys")) as running:
        code, found, _ = await doctor(running.url)
        assert (code, found["stream"][0]["verdict"]) == (0, "warn")
        assert "FEED_KEY" in found["stream"][0]["todo"]
        _, found, _ = await doctor(running.url, "--key", await key_of(running, Scope.READ))
        assert found["stream"][0]["verdict"] == "ok"


ALIVE = Answer(b'{"alive":true}', content_type="application/json")


async def test_why_it_is_not_ready_and_why_a_stream_ends_are_told() -> None:
    state = {"ready": False, "draining": False, "database": "the database does not answer", "lag": 0}
    script = Script(
        ALIVE,
        Answer(json.dumps(state).encode(), 503, "application/json"),
        problem(404),
        Answer(frame("goodbye", {"reason": "unavailable", "retry_ms": 5}, retry=5)),
        ALIVE,  # over HTTP/2
        problem(404),
    )
    async with running(script) as url:
        code, found, _ = await doctor(url)
    assert code == 1
    assert bad(found) == ["ready", "stream"]
    assert "the database does not answer" in found["ready"][0]["found"]
    assert found["frames, HTTP/1.1"][0]["verdict"] == "warn"
    assert "unavailable" in found["stream"][0]["found"]


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    other = Script(ALIVE)
    async with running(other) as elsewhere:
        script = Script(Answer(status=301, headers={"location": f"{elsewhere}/healthz"}))
        async with running(script) as url:
            code, found, _ = await doctor(url, "--key", "feedkey_x")
    assert (code, bad(found)) == (1, ["feed"])
    assert elsewhere in found["feed"][0]["found"]
    assert other.requests == []
    assert "authorization" not in script.requests[0].headers


async def test_what_is_no_feed_is_called_that() -> None:
    async with running(Script(Answer(b"<html>", content_type="text/html"))) as url:
        code, found, _ = await doctor(url)
    assert (code, bad(found)) == (1, ["feed"])


async def test_nobody_there_is_a_finding() -> None:
    async with running(Script()) as url:
        pass
    code, found, _ = await doctor(url)
    assert (code, bad(found)) == (1, ["connection"])


@pytest.mark.parametrize("arguments", [["localhost:8000"], ["http://127.0.0.1:1", "--key", "a b"], ["--database", "x"]])
async def test_a_wrong_command_is_exit_code_2(arguments: list[str]) -> None:
    code, _, err = await doctor(*arguments)
    assert code == 2
    assert "Traceback" not in err


async def test_it_leaves_no_session_behind(dsn: str, database: Connection) -> None:
    await examined(dsn)

    async def none() -> bool:
        return not await backends(database, "feed doctor") + await backends(database, "feed check")

    await until(none, 30)

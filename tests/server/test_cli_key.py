"""`feed key` as a process: made once and shown once, listed without the secret, revoked by its id."""

import json
import os
import re
import sys
import time
from asyncio import create_subprocess_exec, gather
from asyncio.subprocess import PIPE
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cluster import Cluster
from tests.conftest import run_server
from tests.processes import ROOT
from tests.server.credentials import JOB, asking, check_denied, guarded
from tests.waiting import until

FORM = re.compile(r"feedkey_([0-9A-Za-z]{10})_[0-9A-Za-z]{38}")


async def key(dsn: str | None, *arguments: str) -> tuple[int | None, str, str]:
    """Run `feed key` to its end; its exit code, stdout and stderr."""
    environment = os.environ | ({} if dsn is None else {"DATABASE_URL": dsn})
    process = await create_subprocess_exec(
        sys.executable, "-m", "feed", "key", *arguments, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE,
        start_new_session=True,
    )  # fmt: skip
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def made(dsn: str, *arguments: str) -> str:
    """A new key, as `KEY=$(feed key create ...)` gets it."""
    code, out, err = await key(dsn, "create", *arguments)
    assert code == 0, err
    assert out.count("\n") == 1
    text = out.rstrip("\n")
    assert FORM.fullmatch(text), out
    assert text not in err
    return text


async def listed(dsn: str) -> list[dict[str, Any]]:
    code, out, err = await key(dsn, "list", "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


async def test_the_key_is_all_that_is_printed_even_where_the_database_has_yet_to_be_made(cluster: Cluster) -> None:
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute("CREATE DATABASE for_keys")
    try:
        text = await made(cluster.dsn("for_keys"), "--scope", "read")
        assert [one["id"] for one in await listed(cluster.dsn("for_keys"))] == [text.split("_")[1]]
    finally:
        await admin.execute("DROP DATABASE for_keys WITH (FORCE)")
        await admin.close()


async def test_a_key_that_was_made_is_good_as_it_was_asked_for_until_it_is_revoked(dsn: str) -> None:
    reader, writer = await gather(
        made(dsn, "--scope", "read", "--filter", "company=acme", "--expires", "90d", "--max-streams", "5", "--note", "A"),
        made(dsn, "--scope", "write"),
    )  # fmt: skip
    async with (
        run_server(guarded(dsn)) as running,
        asking(running, reader) as reading,
        asking(running, writer) as writing,
    ):
        for company in ("Acme", "Other"):
            assert (await writing.post("/v1/jobs", json=JOB | {"company": company})).status_code == 201
        check_denied(await reading.post("/v1/jobs", json=JOB), 403)
        assert [job["company"] for job in (await reading.get("/v1/jobs")).json()["jobs"]] == ["Acme"]
        ends = datetime.fromisoformat((await reading.get("/v1/session")).json()["expires_at"]).timestamp()
        assert 89 * 86_400 < ends - time.time() < 91 * 86_400

        identity = reader.split("_")[1]
        code, out, err = await key(dsn, "revoke", identity)
        assert (code, out) == (0, "")
        assert identity in err

        async def heard() -> bool:
            return (await reading.get("/v1/jobs")).status_code == 401

        await until(heard)
        check_denied(await reading.get("/v1/jobs/stream"))
        assert (await writing.get("/v1/jobs")).status_code == 200

    by_id = {one["id"]: one for one in await listed(dsn)}
    assert by_id[identity] | {"created": "", "expires": ""} == {
        "id": identity, "scope": "read", "state": "revoked", "filter": "company=acme", "streams": 5, "created": "",
        "expires": "", "note": "A",
    }  # fmt: skip
    other = by_id[writer.split("_")[1]]
    assert (other["scope"], other["state"], other["expires"], other["streams"]) == ("write", "active", None, None)


async def test_the_list_never_shows_a_secret_and_the_database_has_none(
    dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    texts = await gather(*(made(dsn, "--scope", scope) for scope in ("admin", "metrics")))
    await database.execute("UPDATE api_key SET expires_at = now() WHERE id = $1", texts[1].split("_")[1])
    (code, table, err), (_, lines, _) = await gather(key(dsn, "list"), key(dsn, "list", "--json"))
    assert code == 0, err
    assert "expired" in table
    assert "active" in table
    rows = "".join(row["text"] for row in await database.fetch("SELECT k::text AS text FROM api_key k"))
    for text in texts:
        identity, secret = text.split("_")[1:]
        for shown in (table, lines, rows):
            assert identity in shown
            assert secret not in shown
            assert secret.encode().hex() not in shown


async def test_an_empty_list_says_how_to_make_a_key(dsn: str) -> None:
    code, out, err = await key(dsn, "list")
    assert (code, out) == (0, "")
    assert "feed key create" in err
    assert await key(dsn, "list", "--json") == (0, "", "")


async def test_a_note_is_shown_as_it_was_written_and_steers_no_terminal(dsn: str) -> None:
    await made(dsn, "--scope", "read", "--note", "[/Acme] of [bold]\x1b[31m")
    code, table, err = await key(dsn, "list")
    assert code == 0, err
    assert "[/Acme] of [bold]" in table
    assert "\x1b" not in table


async def test_what_makes_no_sense_is_refused_and_makes_no_key(
    dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    read = ("create", "--scope", "read")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("create",), 2, "--scope"),
        ((*read, "--expires", "soon"), 2, "90d"),
        ((*read, "--expires", "0d"), 2, "90d"),
        ((*read, "--max-streams", "0"), 2, "max-streams"),
        ((*read, "--filter", "compny=acme"), 1, "compny"),
        (("revoke",), 2, "--subject"),
        (("revoke", "x", "--token", "y"), 2, "one of them"),
        (("revoke", "nobodysKey"), 1, "nobodysKey"),
    ]
    for (arguments, code, says), (ended, out, err) in zip(
        cases, await gather(*(key(dsn, *arguments) for arguments, _, _ in cases)), strict=True
    ):
        assert (ended, out) == (code, ""), (arguments, err)
        assert says in err
    assert await database.fetchval("SELECT count(*) FROM api_key") == 0


async def test_a_subject_and_a_token_are_revoked_by_name(
    dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    (code, out, err), _ = await gather(
        key(dsn, "revoke", "--subject", "alice@example.com"), key(dsn, "revoke", "--token", "7")
    )
    assert (code, out) == (0, "")
    assert "alice@example.com" in err
    found = await database.fetch("SELECT kind, subject FROM revocation ORDER BY kind")
    assert [tuple(row) for row in found] == [("subject", "alice@example.com"), ("token", "7")]


COMMANDS: list[tuple[str, ...]] = [
    ("list",),
    ("list", "--json"),
    ("create", "--scope", "read"),
    ("revoke", "x5J2kQ9aLm"),
]


@pytest.mark.parametrize("arguments", COMMANDS)
async def test_a_folder_without_a_database_is_said_to_be_one_and_stays_as_it_is(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        code, out, err = await key(None, *arguments, "--data-dir", str(folder))
        assert (code, out) == (2, "")
        assert f"no database in {folder}" in err
        for name in ("--data-dir", "FEED_DATA_DIR", "DATABASE_URL"):
            assert name in err
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_named_wins_over_the_environment(dsn: str, tmp_path: Path) -> None:
    code, _, err = await key(dsn, "list", "--data-dir", str(tmp_path))
    assert (code, f"no database in {tmp_path}" in err) == (2, True)
    code, _, err = await key(None, "list", "--data-dir", str(tmp_path), "--database-url", dsn)
    assert (code, "one of the two" in err) == (2, True)


async def test_a_database_without_a_feed_gets_none_by_a_list(cluster: Cluster) -> None:
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute("CREATE DATABASE for_no_keys")
    try:
        for arguments in (("list",), ("revoke", "x5J2kQ9aLm")):
            code, out, err = await key(cluster.dsn("for_no_keys"), *arguments)
            assert (code, out) == (1, "")
            assert "feed migrate" in err
        there = await asyncpg.connect(cluster.dsn("for_no_keys"))
        assert await there.fetchval("SELECT to_regnamespace('feed')") is None
        await there.close()
    finally:
        await admin.execute("DROP DATABASE for_no_keys WITH (FORCE)")
        await admin.close()


async def test_a_database_that_does_not_answer_is_said_to(tmp_path: Path) -> None:
    code, out, err = await key("postgresql://nobody@127.0.0.1:9/none", "create", "--scope", "read")
    assert (code, out) == (3, "")
    assert "does not answer" in err

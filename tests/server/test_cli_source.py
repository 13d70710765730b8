"""`feed source` as a process: what it makes of what is typed, and what it says of it."""

import json
import os
import pty
import sys
from asyncio import create_subprocess_exec, gather
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.postgres.events import Connection
from tests.processes import ROOT
from tests.server.scripted import Answer, Script, running

OPEN = (
    "INSERT INTO job (title, company, url, source, external_id) VALUES ('Baker', 'Acme', 'https://a.example', $1, $2)"
)
SUSPECT = """
WITH s AS (UPDATE source SET suspect = 'few', suspect_at = now(), open = 2 WHERE name = 'greenhouse:acme')
INSERT INTO source_posting (source, external_id, digest, missed) VALUES ('greenhouse:acme', '1', '', -1),
       ('greenhouse:acme', '2', '', 0)
"""


async def source(dsn: str | None, *arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Run `feed source` to its end; its exit code, stdout and stderr."""
    process = await create_subprocess_exec(
        sys.executable, "-m", "feed", "source", *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env=os.environ | ({} if dsn is None else {"DATABASE_URL": dsn}) | environment, start_new_session=True,
    )  # fmt: skip
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def done(dsn: str, *arguments: str) -> str:
    """Run it where it must succeed; what it says."""
    code, out, err = await source(dsn, *arguments)
    assert (code, out) == (0, ""), err
    return err


async def listed(dsn: str) -> dict[str, dict[str, Any]]:
    code, out, err = await source(dsn, "list", "--json")
    assert code == 0, err
    return {one["name"]: one for one in map(json.loads, out.splitlines())}


async def test_a_source_is_added_listed_paused_resumed_and_removed_with_its_postings(
    dsn: str, database: Connection
) -> None:
    said = await done(dsn, "add", "greenhouse:acme")
    assert "greenhouse:acme is added" in said
    assert "terms" not in said
    said = await done(dsn, "add", "remotive:all")
    for part in ("Remotive (https://remotive.com)", "once in 6h00m", "not be passed on"):
        assert part in said
    code, table, err = await source(dsn, "list")
    assert code == 0, err
    assert "2 sources (2 new)" in table
    assert "remotive:all: must be named beside its postings: Remotive" in table

    assert "feed source resume greenhouse:acme" in await done(dsn, "pause", "greenhouse:acme")
    assert {name: one["state"] for name, one in (await listed(dsn)).items()} == {
        "greenhouse:acme": "paused", "remotive:all": "new",
    }  # fmt: skip
    await done(dsn, "resume", "greenhouse:acme")
    assert (await listed(dsn))["greenhouse:acme"]["state"] == "new"

    for number in "12":
        await database.execute(OPEN, "greenhouse:acme", number)
    await database.execute(OPEN, "another", "1")
    code, _, err = await source(dsn, "remove", "greenhouse:acme")
    assert (code, "--yes" in err) == (2, True)
    assert "2 open postings were closed" in await done(dsn, "remove", "greenhouse:acme", "--yes")
    assert await database.fetchval("SELECT count(*) FROM job WHERE closed_at IS NULL") == 1
    assert list(await listed(dsn)) == ["remotive:all"]


async def test_on_a_terminal_remove_asks_and_no_leaves_everything_as_it_is(dsn: str) -> None:
    await done(dsn, "add", "greenhouse:acme")
    for typed, code, says in ((b"n\n", 1, b"stays as it is"), (b"y\n", 0, b"is removed")):
        ours, theirs = pty.openpty()
        process = await create_subprocess_exec(
            sys.executable, "-m", "feed", "source", "remove", "greenhouse:acme", cwd=ROOT, stdin=theirs, stdout=PIPE,
            stderr=PIPE, env=os.environ | {"DATABASE_URL": dsn}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, typed)
        _, err = await process.communicate()
        os.close(ours)
        assert (process.returncode, says in err) == (code, True), err
        assert b"Close them, and forget the source?" in err
        assert bool(await listed(dsn)) == (code == 1)


async def test_accept_says_why_it_was_suspect_and_what_will_close(dsn: str, database: Connection) -> None:
    await done(dsn, "add", "greenhouse:acme")
    code, _, err = await source(dsn, "accept", "greenhouse:acme")
    assert (code, err.startswith("feed: nothing about greenhouse:acme is suspect")) == (1, True)
    await database.execute(SUSPECT)
    said = await done(dsn, "accept", "greenhouse:acme")
    assert "was suspect: few" in said
    assert "1 open postings were not in the newest one" in said
    assert (await listed(dsn))["greenhouse:acme"]["accepted"] is True


async def test_what_makes_no_sense_is_refused_with_what_to_do_and_adds_nothing(dsn: str, database: Connection) -> None:
    await done(dsn, "add", "lever:firm")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("add", "greenhose:acme"), 2, "did you mean greenhouse?"),
        (("add", "lever:firm"), 1, "feed: there is a source lever:firm already"),
        (("pause", "lever:frim"), 1, "Did you mean lever:firm?"),
    ]
    answers = await gather(*(source(dsn, *arguments) for arguments, _, _ in cases))
    for (arguments, code, says), (ended, out, err) in zip(cases, answers, strict=True):
        assert (ended, out) == (code, ""), (arguments, err)
        assert says in err, (arguments, err)
    assert await database.fetchval("SELECT array_agg(name) FROM source") == ["lever:firm"]


async def test_without_sources_the_list_says_how_to_add_one(dsn: str) -> None:
    code, out, err = await source(dsn, "list")
    assert (code, out) == (0, "")
    assert "feed source add" in err


async def test_without_the_libraries_it_says_what_to_install_and_the_list_needs_none(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['feedparser'] = None\n")
    code, _, err = await source(dsn, "add", "greenhouse:acme", PYTHONPATH=str(tmp_path))
    assert (code, "pip install 'jobfeed[ingest]'" in err) == (2, True), err
    code, _, err = await source(dsn, "list", PYTHONPATH=str(tmp_path))
    assert code == 0, err


async def test_a_database_that_is_not_named_or_does_not_answer_is_said_to_be(tmp_path: Path) -> None:
    code, _, err = await source(None, "list", "--data-dir", str(tmp_path))
    assert (code, "DATABASE_URL" in err) == (2, True)
    code, _, err = await source("postgresql://nobody@127.0.0.1:9/none", "list")
    assert (code, "does not answer" in err) == (3, True)


def board(*jobs: dict[str, Any]) -> Answer:
    """A board of Greenhouse's."""
    return Answer(json.dumps({"jobs": jobs, "meta": {"total": len(jobs)}}).encode(), content_type="application/json")


def job(number: int, **more: Any) -> dict[str, Any]:
    """A posting on it."""
    return {
        "id": number, "title": f"Baker {number}", "company_name": "Acme", "absolute_url": f"https://acme.example/{number}",
        "location": {"name": "Berlin"}, "content": "&lt;p&gt;Bake.&lt;/p&gt;",
    } | more  # fmt: skip


LOCAL = {"FEED_INGEST_ALLOW_HTTP": "true", "FEED_INGEST_ALLOW_NETWORKS": "127.0.0.0/8", "FEED_INGEST_RETRIES": "0"}


async def test_check_tells_of_a_board_before_it_is_a_source_and_needs_no_database(tmp_path: Path) -> None:
    async with running(Script(board(job(1), job(2, title=""), job(3)))) as url:
        asked = ("check", "greenhouse:acme", "--url", f"{url}/x", "--data-dir", str(tmp_path))
        code, out, err = await source(None, *asked, **LOCAL)
        assert (code, err) == (0, "")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        for line in (
            f"fetched {url}/x", "company Acme", "list 2 postings, 1 more could not be read; complete",
            "would post 2 (marked as backfill)", "would close 0", "Baker 1", "Acme · Berlin", "https://acme.example/3",
            "could not be read: 2: title: is required",
        ):  # fmt: skip
            assert line in lines
    code, _, err = await source(None, *asked, **LOCAL)
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = await source(None, *asked, **LOCAL | {"FEED_INGEST_ALLOW_HTTP": "false"})
    assert (code, "FEED_INGEST_ALLOW_HTTP" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []


async def test_check_compares_a_source_with_what_is_open_and_writes_nothing(dsn: str, database: Connection) -> None:
    script = Script(*[board(job(1), job(5))] * 2)
    async with running(script) as url:
        await done(dsn, "add", "greenhouse:acme", "--url", f"{url}/x")
        await database.execute(
            "INSERT INTO source_posting (source, external_id, digest, missed) "
            "SELECT 'greenhouse:acme', n::text, '', CASE n WHEN 3 THEN 1 ELSE 0 END FROM generate_series(1, 4) n"
        )
        before = await database.fetch("SELECT s, p FROM source s JOIN source_posting p ON p.source = s.name")
        code, out, err = await source(dsn, "check", "greenhouse:acme", **LOCAL)
        assert code == 0, err
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert "would update 1" in lines
        assert "would close 1, and 2 more if the next list is without them too" in lines
        assert before == await database.fetch("SELECT s, p FROM source s JOIN source_posting p ON p.source = s.name")
        assert await database.fetchval("SELECT count(*) FROM job") == 0
        await database.execute("UPDATE source SET counts = '{9}'; UPDATE source_posting SET missed = -1")
        _, out, _ = await source(dsn, "check", "greenhouse:acme", **LOCAL)
        assert "suspect       the list holds 2" in out
        assert "would close   0 while it is suspect; `feed source accept greenhouse:acme` lets it close 3" in out

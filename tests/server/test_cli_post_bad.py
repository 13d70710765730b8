"""`feed post` and bad records: nothing is written of a file that has any, unless they are skipped and reported in a file."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.conftest import Running
from tests.server.scripted import Script, counts, feed, problem, running

JOB = {"title": "Baker", "company": "Acme", "url": "https://acme.example/42"}


async def post(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int | None, str, list[str]]:
    """Run `feed post` to its end; returns its exit code, stdout and the lines of stderr."""
    async with feed("post", *map(str, arguments), stdin=-1) as process:
        out, err = await process.communicate(stdin)
        assert b"Traceback" not in err
        return process.returncode, out.decode(), err.decode().splitlines()


def lines(*records: Any) -> bytes:
    """NDJSON; bytes are lines as they are."""
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in records)


def job(name: object, **more: Any) -> dict[str, Any]:
    return JOB | {"external_id": str(name)} | more


async def names(database: "asyncpg.Connection[asyncpg.Record]", where: str = "true") -> list[str]:
    """The external ids of the postings."""
    rows = await database.fetch(f"SELECT external_id FROM job WHERE {where} ORDER BY external_id")
    return [row["external_id"] for row in rows]


BAD = (job(2, url="acme"), b"{oops", [7], b"\xff", {"title": ""})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "jobs.ndjson"
    made.write_bytes(lines(job(1), *BAD, *(job(n) for n in range(100, 700))))
    return made


async def test_nothing_of_a_file_with_a_bad_record_is_written(file: Path) -> None:
    async with running(script := Script()) as url:
        code, out, err = await post(file, "--url", url)
    assert (code, out, script.requests) == (1, "", [])
    assert [one.split(":")[1].strip() for one in err if one.startswith("feed: line")] == [
        "line 2", "line 3", "line 4", "line 5", *["line 6"] * 3,
    ]  # fmt: skip
    assert "Nothing was written" in err[-1] and "--skip-bad" in err[-1]


async def test_a_pipe_is_written_up_to_the_request_with_a_bad_record() -> None:
    script = Script(counts(created=2), problem(422, {"index": 1, "field": "title", "message": "is odd"}))
    async with running(script) as url:
        code, out, err = await post("-", "--url", url, "--batch", "2", stdin=lines(*(job(n) for n in range(9))))
    assert (code, out, len(script.requests)) == (1, "", 2)
    assert err[0] == "feed: line 4: title: is odd"
    assert "stopped: 2 created" in err[1] and "--skip-bad" in err[-1]


@pytest.mark.parametrize("way", ["http", "sql"])
async def test_the_good_records_are_written_and_the_bad_ones_reported_with_line_field_and_record(
    way: str, file: Path, server: Running, dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    to = ("--url", server.url) if way == "http" else ("--database-url", dsn)
    code, out, err = await post(file, *to, "--skip-bad")
    assert (code, out) == (1, "601 created, 0 updated, 0 unchanged, 5 rejected\n")
    bad = file.with_name("jobs.bad.ndjson")
    assert err[-1] == f"feed: 5 bad records are in {bad}"
    assert len(await names(database)) == 601
    told = {one["line"]: one for one in map(json.loads, bad.read_text().splitlines())}
    assert sorted(told) == [2, 3, 4, 5, 6]
    url = {"field": "url", "message": "must be an http or https URL with a host and without spaces"}
    assert told[2] == {"line": 2, "faults": [url], "record": BAD[0]}
    assert [told[n]["record"] for n in (3, 4, 5, 6)] == ["{oops", [7], "\ufffd", {"title": ""}]
    assert [told[n]["faults"][0]["field"] for n in (3, 4, 5)] == ["record"] * 3
    assert {fault["field"] for fault in told[6]["faults"]} == {"title", "company", "url"}

    file.write_bytes(lines(job(1)))  # corrected: the report of the last run goes
    assert await post(file, *to, "--skip-bad") == (0, "0 created, 0 updated, 1 unchanged, 0 rejected\n", [])
    assert not bad.exists()


@pytest.mark.parametrize("way", ["http", "sql"])
async def test_a_record_that_only_the_database_refuses_is_found_among_the_others(
    way: str, file: Path, server: Running, dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    to = ("--url", server.url) if way == "http" else ("--database-url", dsn)
    await database.execute("ALTER TABLE job ADD CONSTRAINT of_the_owner CHECK (seniority <> 'chief')")
    file.write_bytes(lines(*(job(n, **({"seniority": "chief"} if n in (7, 301) else {})) for n in range(400))))
    code, out, err = await post(file, *to)
    assert (code, out) == (1, "")
    assert "of_the_owner" in err[-1]
    assert await names(database) == []
    code, out, err = await post(file, *to, "--skip-bad")
    assert (code, out) == (1, "398 created, 0 updated, 0 unchanged, 2 rejected\n")
    told = [json.loads(line) for line in file.with_name("jobs.bad.ndjson").read_text().splitlines()]
    assert [(one["line"], one["record"]["external_id"]) for one in told] == [(8, "7"), (302, "301")]
    assert all("of_the_owner" in one["faults"][0]["field"] for one in told)


async def test_with_sync_the_posting_of_a_bad_record_is_not_closed(
    tmp_path: Path, server: Running, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    bad = tmp_path / "bad"
    sync = ("-", "--sync", "acme", "--url", server.url, "--skip-bad", "--bad", bad)
    await post(*sync, stdin=lines(*(job(n) for n in range(5))))
    code, out, err = await post(*sync, stdin=lines(job(1), job(2, url="acme"), job(3, source="other"), job(5)))
    assert (code, out) == (1, "1 created, 0 updated, 1 unchanged, 2 rejected, 2 closed\n")
    assert await names(database, "closed_at IS NULL") == ["1", "2", "3", "5"]
    assert len(bad.read_text().splitlines()) == 2

    # The records that follow may stand for any posting.
    for nameless in (b"{oops", JOB | {"url": "acme"}, job(5) | {"external_id": 5}):
        code, out, err = await post(*sync, stdin=lines(job(1), nameless))
        assert (code, out) == (1, "0 created, 0 updated, 1 unchanged, 1 rejected, 0 closed\n")
        assert any("Nothing was closed" in line for line in err)
    assert await names(database, "closed_at IS NULL") == ["1", "2", "3", "5"]


async def test_with_sync_and_a_mapping_the_external_id_of_a_bad_record_is_read(
    tmp_path: Path, server: Running, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        '[posting]\nexternal_id = "id"\ntitle = "t"\ncompany = "t"\nurl = "u"\n'
        'posted_at = { from = "at", as = "epoch_s" }\n'
    )
    sync = ("-", "--sync", "acme", "--url", server.url, "--map", mapping, "--skip-bad", "--bad", tmp_path / "bad")
    one = {"t": "t", "u": "https://a.example"}
    await post(*sync, stdin=lines(*(one | {"id": n} for n in range(4))))
    code, out, _ = await post(*sync, stdin=lines(one | {"id": 1}, one | {"id": 2, "at": "soon"}))
    assert (code, out) == (1, "0 created, 0 updated, 1 unchanged, 1 rejected, 2 closed\n")
    assert await names(database, "closed_at IS NULL") == ["1", "2"]

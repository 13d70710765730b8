"""`feed post --sync`: what a source has no longer is closed, all of the input having been good."""

import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import Running
from tests.server.scripted import Answer, Script, counts, feed, problem, running


def listing(*names: object, **more: Any) -> bytes:
    """NDJSON of good postings with these external ids."""
    base = {"title": "Baker", "company": "Acme", "url": "https://acme.example/42"} | more
    return b"".join(json.dumps(base | {"external_id": str(name)}).encode() + b"\n" for name in names)


async def sync(*arguments: str, stdin: bytes) -> tuple[int | None, str, str]:
    """Run `feed post - --sync acme` to its end; its exit code, stdout and stderr."""
    async with feed("post", "-", "--sync", "acme", *arguments, stdin=PIPE) as process:
        out, err = await process.communicate(stdin)
        assert b"Traceback" not in err
        return process.returncode, out.decode(), err.decode()


async def state(database: "asyncpg.Connection[asyncpg.Record]") -> dict[str, bool]:
    """Whether each posting is open, by source and external id."""
    rows = await database.fetch("SELECT source || '/' || coalesce(external_id, '-') AS name, closed_at FROM job")
    return {row["name"]: row["closed_at"] is None for row in rows}


@pytest.mark.parametrize("way", ["http", "sql"])
async def test_what_is_not_in_the_input_is_closed_and_nothing_of_other_sources(
    way: str, server: Running, dsn: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    to = ("--url", server.url) if way == "http" else ("--database-url", dsn)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        body = listing(1, source="other") + listing(*range(1100), source="acme")  # several pages of the list
        assert (
            await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/x-ndjson"})
        ).is_success
    await database.execute(
        "INSERT INTO job (source, title, company, url) VALUES ('acme', 'x', 'y', 'https://z.example')"
    )
    await database.execute("UPDATE job SET closed_at = now() WHERE external_id = '7'")
    kept = [*range(2, 1098), "new"]
    code, out, err = await sync(*to, stdin=listing(*kept))
    assert (code, err) == (0, "")
    assert out == "1 created, 1 updated, 1,095 unchanged, 0 rejected, 5 closed\n"
    found = await state(database)
    assert found["other/1"] is True
    assert {name.removeprefix("acme/") for name, is_open in found.items() if not is_open} == {
        "0", "1", "1098", "1099", "-",
    }  # fmt: skip
    assert (await sync(*to, stdin=listing(*kept)))[1].endswith("1,097 unchanged, 0 rejected, 0 closed\n")


async def test_what_is_there_again_is_opened_again_unless_it_is_over(
    server: Running, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    over = listing("over", valid_through="2020-01-01T00:00:00Z")
    shut = listing("shut", closed_at="2020-01-01T00:00:00Z")
    to = ("--url", server.url)
    await sync(*to, stdin=listing("stays", "returns") + over + shut)
    await sync(*to, stdin=listing("stays") + over + shut)
    assert await state(database) | {"acme/over": False} == {
        "acme/stays": True, "acme/returns": False, "acme/over": False, "acme/shut": False,
    }  # fmt: skip
    await database.execute("UPDATE job SET closed_at = now() WHERE external_id = 'over' AND closed_at IS NULL")
    await sync(*to, stdin=listing("stays", "returns") + over + shut)
    assert await state(database) == {
        "acme/stays": True, "acme/returns": True, "acme/over": False, "acme/shut": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stdin", "complaint"),
    [
        (b"[]", "the input has no postings"),
        (b"", "the input has no postings"),
        (listing(1) + b"{oops\n", "line 2: record: is not valid JSON"),
        (listing(1) + b'{"title":"b"}\n', "line 2: company: is required"),
        (listing(1) + listing(2, source="other"), "line 2: source: is 'other', and --sync is for 'acme'"),
    ],
)
async def test_an_input_that_cannot_be_the_whole_changes_nothing(stdin: bytes, complaint: str) -> None:
    script = Script()
    async with running(script) as url:
        code, out, err = await sync("--url", url, stdin=stdin)
    assert (code, out) == (1, "")
    assert complaint in err
    assert err.splitlines()[-1].startswith("feed: Nothing was ")
    assert script.requests == []


def page(*jobs: dict[str, Any]) -> Answer:
    """The last page of a list."""
    body = {"jobs": [{"source": "acme", **job} for job in jobs], "next": None, "stream": {"last_event_id": "1.1"}}
    return Answer(json.dumps(body).encode(), content_type="application/json")


CLOSED = Answer(b'{"id":9}', content_type="application/json")
OLD = {"id": 9, "external_id": "old"}


async def test_what_was_open_is_asked_before_anything_is_written() -> None:
    script = Script(page(OLD), counts(created=1), problem(503, retry_after="0"), CLOSED)
    async with running(script) as url:
        code, out, _ = await sync("--url", url, stdin=listing(1))
    assert (code, out) == (0, "1 created, 0 updated, 0 unchanged, 0 rejected, 1 closed\n")
    assert [(r.method, r.path) for r in script.requests] == [
        ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("POST", "/v1/jobs/9/close"), ("POST", "/v1/jobs/9/close"),
    ]  # fmt: skip
    assert script.requests[0].query == {"open": ["true"], "limit": ["500"]}


async def test_one_that_is_gone_meanwhile_is_as_good_as_closed() -> None:
    async with running(Script(page(OLD), counts(created=1), problem(404))) as url:
        assert (await sync("--url", url, stdin=listing(1)))[0] == 0


async def test_nothing_is_closed_where_the_server_has_refused_a_record() -> None:
    refusal = problem(422, {"index": 0, "field": "title", "message": "is odd"})
    script = Script(page(OLD), refusal, counts(created=1))
    async with running(script) as url:
        code, out, err = await sync("--url", url, stdin=listing(1, 2))
    assert (code, out) == (1, "")
    assert "Nothing was closed" in err
    assert len(script.requests) == 3


async def test_the_shipped_example_closes_what_has_become_inactive(
    server: Running, tmp_path: Path, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    one = {
        "id": "a", "title": "t", "company_name": "c", "url": "https://jobs.example/1", "locations": [], "active": True,
        "is_visible": True, "date_posted": 1714605534,
    }  # fmt: skip
    file = tmp_path / "listings.json"
    mapping = str(Path(__file__).parents[2] / "feed" / "examples" / "simplify.toml")
    for active, expected in (
        (True, "2 created"),
        (False, "0 created, 0 updated, 1 unchanged, 0 rejected, 1 skipped, 1 closed"),
    ):
        file.write_text(json.dumps([one, one | {"id": "b", "active": active}]))
        arguments = ("post", str(file), "--map", mapping, "--sync", "simplify", "--url", server.url)
        async with feed(*arguments) as process:
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert out.decode().startswith(expected)
    assert await state(database) == {"simplify/a": True, "simplify/b": False}

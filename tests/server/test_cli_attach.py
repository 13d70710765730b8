"""`feed attach`, `feed attached` and `feed detach` as processes, beside a service that runs."""

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import PIPE
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import Running
from tests.postgres.events import Connection, opened
from tests.processes import ROOT
from tests.server.attach_commands import attached, done, run
from tests.server.scripted import feed
from tests.waiting import until

STELLEN = """
CREATE SCHEMA app;
CREATE TABLE app.stellen (
  id uuid DEFAULT gen_random_uuid(), stellenbezeichnung text NOT NULL, arbeitgeber text NOT NULL, link text NOT NULL,
  plz text, ort text, gehalt_von numeric, gehalt_bis numeric, waehrung char(3), home_office boolean, schlagworte text,
  veroeffentlicht_am timestamptz NOT NULL, aktiv boolean NOT NULL DEFAULT true, PRIMARY KEY (id, veroeffentlicht_am)
) PARTITION BY RANGE (veroeffentlicht_am);
CREATE TABLE app.stellen_2026_10 PARTITION OF app.stellen FOR VALUES FROM ('2026-10-01') TO ('2026-11-01');
CREATE TABLE app.stellen_2026_11 PARTITION OF app.stellen FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
INSERT INTO app.stellen (stellenbezeichnung, arbeitgeber, link, plz, ort, gehalt_von, waehrung, home_office, schlagworte,
                         veroeffentlicht_am, aktiv)
SELECT 'Bäcker ' || n, 'Müller GmbH', 'https://jobs.example/' || n, '10115', 'Berlin', 40000 + n, 'EUR', n % 2 = 0,
       'brot; brötchen', '2026-10-20'::timestamptz + n * interval '1 hour', n <> 7
  FROM generate_series(1, 400) n;
"""
MAP = ("--map", "title=stellenbezeichnung", "--map", "company=arbeitgeber", "--map", "url=link")


async def triggers(database: Connection) -> int:
    return int(
        await database.fetchval(
            "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "WHERE NOT t.tgisinternal AND c.relnamespace = 'app'::regnamespace"
        )
    )


async def listed(client: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["jobs"])


async def compared(database: Connection) -> bool:
    return bool(await database.fetchval("SELECT bool_and(compared_at IS NOT NULL) FROM attachment"))


async def test_a_german_table_is_attached_by_guess_listed_changed_and_detached(
    server: Running, database: Connection, dsn: str
) -> None:
    await database.execute(STELLEN)
    code, out, err = await run(dsn, "attach", "app.stellen")
    assert code == 2, err
    assert "nothing was changed" in err
    assert await triggers(database) == 0
    for shown in ("POSTING 3", "Bäcker 1", "brot, brötchen", "Of 400 rows looked at: 399 open postings, 1 closed"):
        assert shown in out
    command = shlex.split(out[out.index("feed attach") :].replace("\\\n", ""))
    assert command[:2] == ["feed", "attach"]
    assert {"title=stellenbezeichnung", "location=concat_ws(' ', plz, ort)", "--yes", "NOT aktiv"} <= set(command)
    async with feed(*command[1:]) as process:
        assert await process.wait() == 0, await process.communicate()

    await until(lambda: compared(database))
    query = "q=400&location=berlin&tag=brot&workplace=remote&salary_min=30000&currency=EUR"
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        (one,) = await until(lambda: listed(client, query))
        assert (one["title"], one["source"], one["salary_min"]) == ("Bäcker 400", "app.stellen", 40400.0)
        (table,) = await attached(dsn)
        assert (table["table"], table["rows"], table["open"], table["key"]) == (
            "app.stellen", 400, 399, ["id", "veroeffentlicht_am"],
        )  # fmt: skip
        assert table["state"].startswith("up to date")
        await database.execute(
            "UPDATE app.stellen_2026_11 SET stellenbezeichnung = 'Konditor' WHERE gehalt_von = 40400"
        )
        assert [found["id"] for found in await until(lambda: listed(client, "q=konditor"))] == [one["id"]]

        err = await done(dsn, "detach", "app.stellen")
        assert "399 postings were closed" in err
        await until(lambda: _none(client))
    assert await triggers(database) == 0
    assert await attached(dsn) == []
    code, _, err = await run(dsn, "detach", "app.stellen")
    assert (code, "app.stellen is not attached. Attached tables: none" in err) == (1, True)


async def _none(client: httpx.AsyncClient) -> bool:
    return await listed(client, "") == []


async def test_another_map_is_shown_as_a_difference_and_the_postings_keep_their_ids(
    server: Running, database: Connection, dsn: str
) -> None:
    await database.execute(STELLEN)
    await done(dsn, "attach", "app.stellen", *MAP, "--map", "seniority='senior'", "--closed", "NOT aktiv")
    await until(lambda: compared(database))
    ids = {row["external_id"]: row["id"] for row in await database.fetch("SELECT external_id, id FROM job")}
    assert len(ids) == 400

    more = ("attach", "app.stellen", "--map", "location=ort", "--map", "seniority=NULL", "--closed", "false")
    code, out, err = await run(dsn, *more)
    assert (code, "nothing was changed" in err) == (2, True)
    assert "+ location = ort" in out
    assert "- seniority = 'senior'" in out
    assert "- --closed = NOT aktiv" in out
    assert shlex.split(out[out.index("feed attach") :].replace("\\\n", ""))[1:-3] == list(more)
    await done(dsn, *more, "--yes")
    await until(lambda: compared(database))
    rows = await database.fetch("SELECT external_id, id, location, seniority, closed_at FROM job")
    assert {row["external_id"]: row["id"] for row in rows} == ids
    assert {(row["location"], row["seniority"], row["closed_at"]) for row in rows} == {("Berlin", None, None)}

    assert "nothing to change" in await done(dsn, "attach", "app.stellen")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="cannot alter type of a column used by"):
        await database.execute("ALTER TABLE app.stellen ALTER COLUMN stellenbezeichnung TYPE varchar(300)")
    code, _, err = await run(dsn, "attach", "app.stellen", "--source", "other")
    assert (code, "Run feed detach first" in err) == (2, True)
    err = await done(dsn, "detach", "app.stellen", "--keep")
    assert "its 400 open postings stay" in err
    assert await database.fetchval("SELECT count(*) FROM job WHERE closed_at IS NULL") == 400

    # The way to change what the map holds on to: by itself, no posting becomes another one.
    await database.execute("ALTER TABLE app.stellen ALTER COLUMN stellenbezeichnung TYPE varchar(300)")
    code, _, err = await run(dsn, "attach", "app.stellen", *MAP)
    assert (code, "--adopt" in err) == (2, True)
    await done(dsn, "attach", "app.stellen", *MAP, "--adopt")
    await until(lambda: compared(database))
    rows = await database.fetch("SELECT external_id, id, closed_at FROM job")
    assert {row["external_id"]: row["id"] for row in rows} == ids
    assert {row["closed_at"] for row in rows} == {None}


async def test_what_an_administrator_runs_is_printed_and_is_all_that_it_takes(
    server: Running, database: Connection, dsn: str
) -> None:
    await database.execute(STELLEN)
    await database.execute("CREATE ROLE feeder LOGIN; CREATE SCHEMA feed2 AUTHORIZATION feeder")
    mine = dsn.replace("postgres@", "feeder@")
    try:
        os.environ["FEED_SCHEMA"] = "feed2"
        await done_migrating(mine)
        given = (
            "attach",
            "app.stellen",
            "--map",
            "title=stellenbezeichnung",
            "--map",
            "company=arbeitgeber",
            "--map",
            "url=link",
        )
        code, _, err = await run(mine, *given)
        assert code == 1
        assert "GRANT USAGE ON SCHEMA app TO feeder;" in err
        assert "--sql" in err
        await database.execute("GRANT USAGE ON SCHEMA app TO feeder")
        code, sql, err = await run(mine, *given, "--sql")
        assert code == 0, err
        assert "GRANT SELECT, TRIGGER ON app.stellen_2026_10 TO feeder;" in sql
        assert await triggers(database) == 0
        async with opened(dsn, "public") as administrator:
            await administrator.execute(sql)
        (table,) = await attached(mine)
        assert (table["table"], table["compared_at"]) == ("app.stellen", None)
        assert "nothing to change" in await done(mine, *given)
        await done(mine, "detach", "app.stellen")
        assert await triggers(database) == 0
    finally:
        del os.environ["FEED_SCHEMA"]
        await database.execute("DROP OWNED BY feeder CASCADE; DROP ROLE feeder")


async def done_migrating(dsn: str) -> None:
    code, _, err = await run(dsn, "migrate")
    assert code == 0, err


async def test_a_company_without_a_column_is_asked_for_and_the_rest_is_guessed(database: Connection, dsn: str) -> None:
    await database.execute(
        "CREATE TABLE public.vacancies (id bigint PRIMARY KEY, headline text, slug text, city text, is_active boolean);"
        "INSERT INTO public.vacancies VALUES (1, 'Baker', 'baker', 'Berlin', true)"
    )
    code, _, err = await run(dsn, "attach", "vacancies")
    assert code == 2
    assert "guessed by the columns' names: title=headline, location=city" in err
    assert "the map lacks company and url" in err
    assert "Columns of public.vacancies: id bigint, headline text, slug text" in err
    code, out, err = await run(
        dsn, "attach", "vacancies", "--map", "company='Acme'", "--map", "url='https://acme.example/' || slug"
    )
    assert code == 2
    assert "https://acme.example/baker" in out
    assert """--map "company='Acme'" \\\n""" in out
    code, _, err = await run(dsn, "attach", "nowhere.vacancies", "--map", "title=x")
    assert (code, "Did you mean public.vacancies?" in err) == (2, True)
    code, _, err = await run(dsn, "attach", "vacancies", "--map", "titel=x")
    assert (code, "did you mean title?" in err) == (2, True)


async def test_on_a_terminal_it_asks_and_only_yes_means_yes(database: Connection, dsn: str) -> None:
    await database.execute(
        "CREATE TABLE public.vacancies (id bigint PRIMARY KEY, title text, company text, url text);"
        "INSERT INTO public.vacancies VALUES (1, 'Baker', 'Acme', 'https://acme.example/1');"
        "CREATE TABLE public.more () INHERITS (public.vacancies)"
    )
    for answer, code, attachments, said in (
        (b"n\n", 1, 0, b"nothing was changed"),
        (b"\x04", 130, 0, b"interrupted: nothing was changed"),  # Ctrl-D, to which Ctrl-C is the same here
        (b"y\n", 0, 1, b"no feed serve runs"),
    ):
        ours, theirs = os.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "feed", "attach", "vacancies", "--database-url", dsn, cwd=ROOT, stdin=theirs,
            stdout=theirs, stderr=PIPE, env=os.environ | {"COLUMNS": "120"}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        shown = await asyncio.to_thread(_read_until, ours, "[y/N]")
        assert "POSTING 1" in shown
        os.write(ours, answer)
        _, err = await process.communicate()
        os.close(ours)
        assert (process.returncode, said in err) == (code, True), err
        assert b"Traceback" not in err
        assert b"with the same id, these are one posting" in err
        assert await database.fetchval("SELECT count(*) FROM attachment") == attachments


def _read_until(descriptor: int, mark: str) -> str:
    """Read a terminal until `mark` is on it, or its other side is closed."""
    said = b""
    while mark.encode() not in said:
        try:
            said += os.read(descriptor, 65536)
        except OSError:
            break
    return said.decode(errors="replace")

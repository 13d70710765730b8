"""What `feed serve` prints when it has started."""

import pytest

from tests.processes import serving
from tests.waiting import until


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
async def test_a_database_that_cannot_be_reached_is_said_in_the_banner(flags: tuple[str, ...]) -> None:
    async with serving("postgresql://nobody:hunter2@127.0.0.1:9/none", flags=flags) as service:
        await until(lambda: b"Use SQL" in service.printed)
        before = service.printed_before + service.printed
        assert b"has started without its database: the database does not answer" in before
        assert b"hunter2" not in before


async def test_the_banner_has_no_such_line_where_the_database_answers(dsn: str) -> None:
    async with serving(dsn) as service:
        await until(lambda: b"Use SQL" in service.printed)
        assert b"without its database" not in service.printed_before + service.printed


async def test_the_banner_keeps_a_password_to_itself(dsn: str) -> None:
    address = dsn.replace("postgres@", "postgres:hunter2@")
    assert address != dsn
    async with serving(None, flags=("--database-url", address)) as service:
        await until(lambda: b"Use SQL" in service.printed)
        assert f"psql --database-url {dsn}".encode() in service.printed
        assert b"hunter2" not in service.printed + service.said

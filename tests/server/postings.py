"""Postings that tests write, and ways to write them."""

from typing import Any

import asyncpg

from tests.conftest import Running
from tests.reader import Reader
from tests.waiting import until

INSERT = "INSERT INTO job (title, company, url) VALUES ($1, 'Acme', 'https://acme.example')"


MANY = (
    "INSERT INTO job (title, company, url) "
    "SELECT 'Job ' || n, 'Acme', 'https://acme.example' FROM generate_series(1, $1) n"
)


NASTY = "".join(map(chr, range(1, 32))) + (
    "\x7f\x85\u2028\u2029\ufeff\u202e\U0001f600e\u0301\ud7ff\uffff"
    "\r\rdata: a\n\nid: 9.9\nevent: goodbye\ndata: {}\n\n\r\n: x\r\n\r\n"
)


async def fill(running: Running, database: "asyncpg.Connection[Any]", count: int) -> int:
    """Post `count` jobs and return the epoch, once the service knows them all."""
    wanted = running.service.hub.head + count
    await database.execute(MANY, count)
    await until(lambda: running.service.hub.head == wanted)
    return running.service.hub.epoch


async def replayed(reader: Reader) -> list[int]:
    """The positions that come before `synced`, which must agree about their number."""
    opening = await reader.until("synced")
    positions = [frame.position for frame in opening if frame.event in ("posted", "updated", "closed")]
    assert opening[-1].data["replayed"] == len(positions)
    return positions


BIG = (
    "INSERT INTO job (title, company, url, tags) SELECT 'Big ' || n, 'Acme', 'https://acme.example', "
    "array_fill(repeat('x', 1000), ARRAY[100]) FROM generate_series(1, $1) n"
)
"""Events of 100 kB each: a hundred of them are more than the kernel takes off the server's hands."""

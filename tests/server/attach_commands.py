"""`feed attach` and its neighbours as processes, run to their end."""

import asyncio
import json
from typing import Any

from tests.server.scripted import feed


async def run(dsn: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command of `feed` on a database to its end; its exit code, stdout and stderr."""
    async with feed(*arguments, "--database-url", dsn, stdin=asyncio.subprocess.DEVNULL) as process:
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def done(dsn: str, *arguments: str) -> str:
    """Run a command that succeeds; what it says on stderr."""
    code, _, err = await run(dsn, *arguments)
    assert code == 0, err
    return err


async def attached(dsn: str) -> list[dict[str, Any]]:
    code, out, err = await run(dsn, "attached", "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]

"""`python -m tests.boards.compare`: whether a feed has told of the played boards what happened on them.

    python -m tests.boards.compare http://127.0.0.1:8000 https://127.0.0.1:8443 --ca /tmp/boards/boards.pem

reads the feed's stream from its beginning to its end, and the boards' script. It says where the two differ, and ends with 1
if they do anywhere but on a board that has changed too lately.
"""

import argparse
import asyncio
import sys
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx

from feed.client import FeedClient
from tests.boards.script import READS


async def _told(url: str) -> dict[str, Counter[str]]:
    """Return how many events of each kind the feed has told of each source."""
    counts: dict[str, Counter[str]] = {}
    async with FeedClient(url) as client, aclosing(client.follow(start="earliest", control=True)) as events:
        async for event in events:
            if event.kind == "synced":
                break
            if event.is_posting:
                counts.setdefault(event.data["source"], Counter())[event.kind] += 1
    return counts


async def _script(url: str, ca: Path | None) -> dict[str, dict[str, Any]]:
    context = httpx.create_ssl_context(trust_env=False)
    if ca is not None:
        context.load_verify_locations(ca)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.get(f"{url}/script")
        return answer.raise_for_status().json()


async def _compare(given: argparse.Namespace) -> int:
    script = await _script(given.boards, given.ca)
    told = await _told(given.feed)
    wrong = late = 0
    total: Counter[str] = Counter()
    for name, board in script.items():
        happened = {kind: board[kind] for kind in ("posted", "updated", "closed")}
        total.update(happened)
        counted = {kind: told.get(name, Counter())[kind] for kind in happened}
        if counted != happened:
            is_late = board["told"] < READS
            late, wrong = late + is_late, wrong + (not is_late)
            print(f"{name}: happened {happened}, told {counted}{' (changed lately)' if is_late else ''}")
    print(f"{len(script)} boards, {dict(total)}: {wrong} differ, and {late} that changed lately")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.boards.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("feed", help="the feed's URL")
    parser.add_argument("boards", help="the boards' URL")
    parser.add_argument("--ca", type=Path, help="the boards' certificate")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(_compare(_arguments())))

"""`python -m tests.boards`: boards on this machine, for trying out ingest by hand or for hours.

    python -m tests.boards --port 8443 --tls --boards 2 --churn 2 --seed 7

prints how to add each board as a source, and the settings that a feed needs to reach them. With --churn a board changes
every so many seconds, once a reader has seen its last change. http://127.0.0.1:PORT/script tells what was posted, updated
and closed on each board, as does the end (Ctrl-C or SIGTERM). Where `told` is 3 or more, a reader should have counted the
same: `python -m tests.boards.compare` says whether it did.
"""

import argparse
import asyncio
import json
import random
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.boards.script import SOURCES, Churn, Fault
from tests.boards.server import Boards, serving
from tests.boards.shapes import MAPPING, url_of

_FAULTS: tuple[Fault, ...] = (
    "truncated",
    "empty",
    "nothing",
    "not_found",
    "server",
    "busy_seconds",
    "busy_date",
    "broken",
)
"""Those of --faults, which cost neither side much."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.boards", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--tls", action="store_true", help="HTTPS, with a certificate made on the fly")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/boards"), help="where certificate and mapping are written"
    )
    parser.add_argument(
        "--hosts", type=int, default=1, help="addresses that the boards are spread over: 127.0.0.1, .2, ..."
    )
    parser.add_argument("--sources", default=",".join(SOURCES), help="kinds of boards, separated by commas")
    parser.add_argument("--boards", type=int, default=1, help="boards of each kind")
    parser.add_argument("--jobs", type=int, default=20, help="postings of a board at the beginning")
    parser.add_argument("--churn", type=float, metavar="SECONDS", help="change boards every so many seconds")
    parser.add_argument("--for", type=float, dest="seconds", help="seconds after which boards change no more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=0.0, help="part of the answers that are faults, from 0 to 1")
    return parser.parse_args()


def _explain(boards: Boards, folder: Path) -> None:
    mapping = folder / "boards.toml"
    folder.mkdir(parents=True, exist_ok=True)
    mapping.write_text(MAPPING)
    trust = f"FEED_INGEST_CA_FILE={boards.ca_file}" if boards.ca_file else "FEED_INGEST_ALLOW_HTTP=true"
    print(f"export FEED_INGEST_ALLOW_NETWORKS=127.0.0.0/8 {trust} FEED_INGEST_GAP=0.01 FEED_INGEST_INTERVAL=2", end=" ")
    print("FEED_INGEST_INTERVAL_MAX=2 FEED_INGEST_POLL=0.5")
    for name, board in boards.all.items():
        more = ["--map", str(mapping)] if board.source == "json" else []
        more += ["--url", url_of(board)]  # also where it is the name: the terms of its source do not count then
        more += ["--accept-terms"] if board.source == "smartrecruiters" else []
        print(shlex.join(["feed", "source", "add", name, *more]))


async def _run(given: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with serving(given.port, given.folder if given.tls else None, given.hosts) as boards:
        for source in given.sources.split(","):
            if source not in SOURCES:
                sys.exit(f"{source}: is no kind of board; use some of: {', '.join(SOURCES)}")
            for name in ["all"] if source == "remoteok" else [f"board{n}" for n in range(1, given.boards + 1)]:
                boards.open(source, name, given.jobs)
        _explain(boards, given.folder)
        print(f"# {boards.hosts[0]}/script", flush=True)
        begun = time.monotonic()
        churn, chance = Churn(boards.all, given.seed), random.Random(given.seed)
        try:
            while True:
                await asyncio.sleep(given.churn or 3600)
                if given.churn and (given.seconds is None or time.monotonic() < begun + given.seconds):
                    churn.step()
                for board in boards.all.values():
                    if chance.random() < given.faults:
                        board.next_faults.append(chance.choice(_FAULTS))
        finally:
            print(json.dumps(boards.script(), indent=1))


with suppress(KeyboardInterrupt, asyncio.CancelledError):
    asyncio.run(_run(_arguments()))

"""The server's side of a connection, for tests that look at it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

LIST = "/v1/jobs?limit=200"


def server_side(url: str, port: int) -> list[str]:
    """The states (`01` is ESTABLISHED) of the service's ends of the connections that a client's port has with it."""
    ours = urlsplit(url).port

    def states() -> Iterator[str]:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if int(local.split(":")[1], 16) == ours and int(remote.split(":")[1], 16) == port:
                yield state

    return list(states())

"""Timing: frames that say when they were sent, against when they arrived."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

import httpx
import orjson

_LONGEST = 20.0
"""Seconds that a probe may take; it should be over in less than one."""


class NoProbe(Exception):
    """What answers at the address has no `/v1/probe`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one probe found; times are in seconds."""

    held: float
    """The longest that a frame was held back, compared with the one that was least."""
    gaps: tuple[float, ...]
    """The times between arrivals."""
    http_version: str
    encoding: str
    """How the body was compressed on the way; empty where it was not."""
    version: str
    """The version of the feed that answers."""
    client: str
    """The client's address, as the server sees it."""
    peer: str
    """The address that the connection leads to; empty where that is not known."""


async def measure(client: httpx.AsyncClient) -> Measured:
    """Ask for the probe and time its frames; raises NoProbe, TimeoutError, or what httpx raises."""
    arrived: list[tuple[float, dict[str, object]]] = []
    rest = b""
    # As browsers ask, so that what compresses on the way does so here too.
    headers = {"Accept-Encoding": "gzip, deflate"}
    async with asyncio.timeout(_LONGEST), client.stream("GET", "v1/probe", headers=headers) as response:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if response.status_code != 200 or kind != "text/event-stream":
            raise NoProbe(f"/v1/probe answered {response.status_code}, {kind or 'no type'}")
        network = response.extensions.get("network_stream")
        server = network.get_extra_info("server_addr") if network is not None else None
        async for piece in response.aiter_bytes():
            now = time.monotonic()
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                arrived.append((now, _said(block)))
        if len(arrived) < 2:
            raise NoProbe(f"/v1/probe sent {len(arrived)} frames")
        ways = [at - float(str(said["after_ms"])) / 1000 for at, said in arrived]
        first = arrived[0][1]
        return Measured(
            held=max(ways) - min(ways),
            gaps=tuple(late[0] - early[0] for early, late in pairwise(arrived)),
            http_version=response.http_version,
            encoding=response.headers.get("content-encoding", ""),
            version=str(first.get("version", "")),
            client=str(first.get("client", "")),
            peer=str(server[0]) if isinstance(server, tuple) else "",
        )


def _said(block: bytes) -> dict[str, object]:
    data = block.partition(b"data: ")[2]
    try:
        said = orjson.loads(data)
        float(str(said["after_ms"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise NoProbe("/v1/probe sent something else than a probe") from None
    document: dict[str, object] = said
    return document

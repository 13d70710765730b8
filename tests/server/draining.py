"""What tests of the drain look at: goodbyes, protocols and connections."""

import contextlib
from pathlib import Path

from tests.processes import Curl

STREAM = "/v1/jobs/stream"


def protocols(url: str) -> list[str]:
    """curl's flags for every protocol that the service at `url` speaks."""
    return ["--http1.1", "--http2" if url.startswith("https") else "--http2-prior-knowledge"]


async def farewell(curl: Curl) -> None:
    """The stream's end as a client should see it: a goodbye with a retry, nothing behind it, and exit code 0."""
    frames, code = await curl.rest()
    assert code == 0
    assert [frame.event for frame in frames if frame.event not in (None, "heartbeat")] == ["goodbye"]
    assert frames[-1].data["reason"] == "drain"
    assert frames[-1].retry == frames[-1].data["retry_ms"] > 0


def connections(pid: int) -> int:
    """How many sockets a process holds."""
    held = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held += str(descriptor.readlink()).startswith("socket:")
    return held

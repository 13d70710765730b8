"""What a process of readers is told, and what it answers: JSON on its stdin and stdout."""

from dataclasses import asdict, dataclass, field
from typing import Literal

import orjson

Http = Literal["http/1.1", "h2"]
Task = Literal["count", "time", "replay", "return"]
"""`count` events; `time` each by the stamp in it; `replay`: read from a cursor until the head is met; or `return`: come back
with the last id, after the time that the server asked for, to each stream that the server ends.
"""

MARKER = '"external_id":"{run}-'
"""What every posting of a run has in it once; behind it stand its number and its stamp, in µs of the monotonic clock."""
ANY = 'data: {"id":'
"""What every event about a posting has in it once."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Streams to open.

    In `path` and `headers`, `{n}` is the subscriber's number (`{n%10}`, `{n/10}` and `{n*10}` are what they say) and
    `{cursor}` its cursor.
    """

    host: str
    port: int
    path: str
    http: Http = "h2"
    tls: bool = False
    streams: int = 1
    """Streams a connection; more than one needs h2, more than a hundred no server allows at once."""
    first: int = 0
    """Number of the first subscriber."""
    subscribers: int = 1
    task: Task = "count"
    marker: str = ANY
    live: str = "event: synced"
    """What comes when a stream is live."""
    separator: str = "\n\n"
    """What ends a frame; sse-starlette's default is CR LF twice."""
    headers: tuple[tuple[str, str], ...] = ()
    cursors: tuple[str, ...] = ()
    """A cursor for each subscriber."""
    kernel_times: bool = False
    """Whether the kernel times an arrival, when the bytes reach the socket, and not the reader, when it has woken up and
    read them. Over TLS it is always the reader.
    """
    return_port: int = 0
    """Port that streams come back to, on the same host (`return`)."""
    pending: int = 200
    """Connections that may be on their way at the same time."""
    patience: float = 30.0
    """Seconds for all to become live."""
    nice: int = 0
    cores: tuple[int, ...] = ()
    """The processor's cores to run on; empty: any."""

    @property
    def authority(self) -> str:
        """Return the server's name as the Host header gives it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def dumps(self) -> str:
        """Return the specification as one line of JSON."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def loads(cls, text: str) -> "Spec":
        """Return the specification that `dumps` wrote as `text`."""
        found = orjson.loads(text)
        found["headers"] = tuple((name, value) for name, value in found["headers"])
        found["cursors"], found["cores"] = tuple(found["cursors"]), tuple(found["cores"])
        return cls(**found)


@dataclass(slots=True)
class Seen:
    """What the readers of a process have seen. `pieces` counts chunks or DATA frames with events in them."""

    live: int = 0
    ended: int = 0
    deliveries: int = 0
    missing: int = 0
    twice: int = 0
    pieces: int = 0
    size: int = 0
    """Bytes of the frames with events in them."""
    at: float = 0.0
    """When the last event arrived, on the monotonic clock, in seconds."""
    cpu: float = 0.0
    """Seconds of processor that the process has used."""
    times: dict[str, list[int]] = field(default_factory=dict)
    """By event: µs from its stamp to each arrival (`time`)."""
    stamps: dict[str, int] = field(default_factory=dict)
    behind: int = 0
    """Positions between the cursors and the heads that were met (`replay`)."""
    gaps: int = 0
    """Events too few or too many among those (`replay`)."""
    lived: list[float] = field(default_factory=list)
    """When each stream became live, on the monotonic clock (`replay`), or became so again (`return`)."""
    refused: int = 0
    """Attempts to come back that failed, and were made again (`return`)."""
    error: str | None = None

"""What Hypercorn gives to each connection of a worker, kept once for all of them."""

from dataclasses import dataclass
from typing import Any

from feed.hypercorn_adapter.config import WireConfig


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The application, its configuration, and the state of the process that serves."""

    app: Any
    """The ASGI application: `await app(scope, receive, send)`."""
    config: WireConfig
    state: dict[str, Any]
    """What the lifespan left for each request (ASGI's lifespan state)."""
    terminated: Any
    """Hypercorn's event, whose `is_set()` says that the process is stopping."""


class TakenParts:
    """Stands for the reader and the writer of a connection: keeps what Hypercorn makes a connection of (install.py)."""

    parts: WorkerParts | None = None


class PartsTaker:
    """Stands in the place of Hypercorn's TCPServer: it takes what a connection is made of, and serves none itself.

    Hypercorn names the application and the state in a function inside of `worker_serve` alone, which calls this class.
    """

    def __init__(
        self, app: Any, loop: Any, config: Any, context: Any, state: Any, reader: TakenParts, writer: TakenParts
    ) -> None:
        # Hypercorn wraps the application to hand it two more functions, for WSGI.
        reader.parts = WorkerParts(getattr(app, "app", app), config, state, context.terminated)

    def __await__(self) -> Any:
        """Return at once."""
        return iter(())

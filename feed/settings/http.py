"""Where the service listens, and what a request may be."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode

from feed.settings.units import Bytes, Count, Seconds


class HttpOptions(BaseSettings):
    """Where the service listens, and what a request may be."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    workers: Count = 1
    """Processes that serve; each has a hub of its own."""
    certfile: Path | None = None
    keyfile: Path | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ("*",)
    """Origins that may read, comma-separated in the environment; `*` is any."""
    item_bytes: Bytes = 1024 * 1024
    """One posting in a write."""
    request_bytes: Bytes = 32 * 1024 * 1024
    """One write."""
    body_timeout: Seconds = 30.0
    """Between two pieces of a request's body."""
    request_timeout: Seconds = 120.0
    """A request's whole body: `request_bytes` take 2.2 Mbit/s."""
    filter_values: Count = 100
    """Values and words in one filter."""

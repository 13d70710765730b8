"""What operators see."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from feed.settings.units import Seconds


class OperatorOptions(BaseSettings):
    """What operators see."""

    # Operators
    canary_interval: Seconds | None = None
    """Between heartbeat rows that take the whole way from a commit to a subscriber of the process's own; None: none."""
    canary_timeout: Seconds = 5.0
    """A canary that takes longer makes `/readyz` say so."""

    # Logs
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    log_streams: bool = True
    """One line for each stream at its end."""

"""What operators see."""

from typing import Literal

from pydantic import Field

from feed.settings.group import Group, Seconds


class CanarySettings(Group):
    """The canary, a row that takes the whole way of an event and is timed."""

    interval: Seconds | None = Field(default=None, validation_alias="FEED_CANARY_INTERVAL")
    """Seconds between canaries. Unless given, there are none."""
    timeout: Seconds = Field(default=5.0, validation_alias="FEED_CANARY_TIMEOUT")
    """Seconds that a canary may take. A longer one makes `/readyz` say so."""


class LoggingSettings(Group):
    """Log output."""

    level: str = Field(default="info", pattern="^(debug|info|warning|error)$", validation_alias="FEED_LOG_LEVEL")
    """The least important level that is logged: debug, info, warning or error."""
    format: Literal["auto", "console", "json"] = Field(default="auto", validation_alias="FEED_LOG_FORMAT")
    """`console` is for people, `json` for machines. `auto` is `console` on a terminal and `json` elsewhere."""

"""Every setting of the service, each with its unit; the environment names them `FEED_*` (and `DATABASE_URL`)."""

import difflib
import os
from ipaddress import ip_address
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from feed.errors import ConfigurationError
from feed.settings.access import AccessOptions
from feed.settings.database import DatabaseOptions
from feed.settings.fanout import FanoutOptions
from feed.settings.http import HttpOptions
from feed.settings.limits import LimitOptions
from feed.settings.operators import OperatorOptions
from feed.settings.wire import WireOptions

_PREFIX = "FEED_"
_LISTS = ("cors_origins", "trusted_proxies", "limits_exempt")


class Settings(
    DatabaseOptions, FanoutOptions, HttpOptions, AccessOptions, LimitOptions, WireOptions, OperatorOptions
):  # fmt: skip
    """Read once at start-up, by `feed.cli` or by `feed.app:app`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        lists = {name: values[name] for name in _LISTS if isinstance(values.get(name), str)}
        return values | {name: tuple(p.strip() for p in text.split(",") if p.strip()) for name, text in lists.items()}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.retry_min > self.retry_max:
            raise ValueError("retry_min must not be over retry_max")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile go together")
        if self.writing == "open" and not self.on_loopback:
            raise ValueError(
                f"writing must not be open on {self.host}: anybody could post. Use FEED_WRITING=keys and "
                "`feed key create --scope write`, or listen on 127.0.0.1"
            )
        keys = [self.jwt_key is not None, self.jwt_key_file is not None, self.jwt_jwks_url is not None]
        if sum(keys) != (self.jwt_algorithm is not None):
            raise ValueError(
                "tokens need jwt_algorithm and one of jwt_key, jwt_key_file, jwt_jwks_url: set FEED_JWT_ALGORITHM and a key"
            )
        if self.proxy_protocol and self.certfile is not None:
            raise ValueError("proxy_protocol is for plain connections: leave TLS to the proxy, or turn it off")
        if self.proxy_protocol and not (self.trusted_proxies and self.wire):
            raise ValueError(
                "proxy_protocol needs to know whose header to believe: set FEED_TRUSTED_PROXIES to the proxies' addresses "
                "(and leave FEED_WIRE on)"
            )
        if self.sequencer_lease <= 2 * self.tail_poll:
            raise ValueError("sequencer_lease must be over twice tail_poll")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        return is_loopback(self.host)

    @property
    def open_reading(self) -> bool:
        """Whether reading needs no credential."""
        return self.reading == "open" or (self.reading is None and self.on_loopback)

    @property
    def open_writing(self) -> bool:
        """Whether writing needs no credential."""
        return self.writing == "open" or (self.writing is None and self.on_loopback)

    @property
    def open_metrics(self) -> bool:
        """Whether `/metrics` needs no credential."""
        return self.metrics == "open" or (self.metrics is None and self.on_loopback)


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is this machine's own and nobody else's."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings(**overrides: object) -> Settings:
    """Return the settings from the environment and `overrides` (flags); raises ConfigurationError in plain words."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} - {"FEED_DB_SCHEMA"} | {"FEED_SCHEMA"}
    known.add("FEED_KEY")  # of the commands that are clients
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"{name} is no setting of feed{hint}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        field = "_".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigurationError(f"{field}: {first['msg']}") from None

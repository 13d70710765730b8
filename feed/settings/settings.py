"""All settings of the service, composed of groups; the environment names them `FEED_*` (and `DATABASE_URL`)."""

import difflib
import os
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from feed.errors import ConfigurationError
from feed.settings.access import AccessSettings, JwtSettings
from feed.settings.attached import AttachedSettings
from feed.settings.database import DatabaseSettings
from feed.settings.fanout import DrainSettings, HubSettings, ReplaySettings, StreamSettings
from feed.settings.group import PREFIX, Group, argument_of, options_in, variable_of
from feed.settings.http import ListenSettings, RequestSettings, WireSettings
from feed.settings.ingest import IngestSettings
from feed.settings.limits import LimitSettings, ProxySettings
from feed.settings.log import LogSettings, SequencerSettings, TailerSettings
from feed.settings.operators import CanarySettings, LoggingSettings

_REMEMBERED = 1_000
"""Hosts and addresses of which it is remembered whether they are this machine's."""


class Settings(BaseModel):
    """The settings of one service, frozen. `feed.cli` and `feed.app:app` read them once, at start-up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: ListenSettings
    database: DatabaseSettings
    sequencer: SequencerSettings
    tailer: TailerSettings
    log: LogSettings
    attached: AttachedSettings
    hub: HubSettings
    replay: ReplaySettings
    streams: StreamSettings
    drain: DrainSettings
    requests: RequestSettings
    wire: WireSettings
    access: AccessSettings
    jwt: JwtSettings
    proxies: ProxySettings
    limits: LimitSettings
    ingest: IngestSettings
    canary: CanarySettings
    logging: LoggingSettings

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hub.retry_min > self.hub.retry_max:
            raise ValueError("FEED_RETRY_MIN must not be over FEED_RETRY_MAX")
        if (self.listen.certfile is None) != (self.listen.keyfile is None):
            raise ValueError("FEED_CERTFILE and FEED_KEYFILE go together")
        if self.access.writing == "open" and not self.on_loopback:
            raise ValueError(
                f"writing must not be open on {self.listen.host}: anybody could post. Use FEED_WRITING=keys and "
                "`feed key create --scope write`, or listen on 127.0.0.1"
            )
        keys = [self.jwt.key is not None, self.jwt.key_file is not None, self.jwt.jwks_url is not None]
        if sum(keys) != (self.jwt.algorithm is not None):
            raise ValueError(
                "tokens need FEED_JWT_ALGORITHM and one of FEED_JWT_KEY, FEED_JWT_KEY_FILE and FEED_JWT_JWKS_URL"
            )
        if self.proxies.proxy_protocol and self.listen.certfile is not None:
            raise ValueError(
                "FEED_PROXY_PROTOCOL is for plain connections: leave TLS to the proxy, or turn FEED_PROXY_PROTOCOL off"
            )
        if self.proxies.proxy_protocol and not (self.proxies.trusted and self.wire.enabled):
            raise ValueError(
                "FEED_PROXY_PROTOCOL needs to know whose header to believe: set FEED_TRUSTED_PROXIES to the proxies' "
                "addresses (and leave FEED_WIRE on)"
            )
        if self.sequencer.lease <= 2 * self.tailer.poll:
            raise ValueError("FEED_SEQUENCER_LEASE must be over twice FEED_TAIL_POLL")
        return self

    def changed(self, **options: object) -> "Settings":
        """The same settings with some changed; options are named as for `load_settings` and are not validated anew."""
        groups: dict[str, dict[str, object]] = {}
        for option, value in options.items():
            group, field = _OPTIONS[option]
            groups.setdefault(group, {})[field] = value
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=fields) for name, fields in groups.items()}
        )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.listen.host)

    @property
    def open_reading(self) -> bool:
        """Whether reading needs no credential."""
        return self.access.reading == "open" or (self.access.reading is None and self.on_loopback)

    @property
    def open_writing(self) -> bool:
        """Whether writing needs no credential."""
        return self.access.writing == "open" or (self.access.writing is None and self.on_loopback)

    @property
    def open_metrics(self) -> bool:
        """Whether `/metrics` needs no credential."""
        return self.access.metrics == "open" or (self.access.metrics is None and self.on_loopback)


@lru_cache(_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, belongs to this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def groups() -> Mapping[str, type[Group]]:
    """The class of each group of `Settings`, by the group's name."""
    return {name: cast("type[Group]", field.annotation) for name, field in Settings.model_fields.items()}


_OPTIONS = {option: (group, field) for group, kind in groups().items() for option, field in options_in(kind)}
"""The group and the field of each option of `load_settings`."""


def variables() -> dict[str, tuple[type[Group], str]]:
    """Every environment variable of feed, with the group and the field that it sets."""
    return {
        variable_of(name, field): (kind, name)
        for kind in groups().values()
        for name, field in kind.model_fields.items()
    }


def load_settings(**options: object) -> Settings:
    """Return the settings of the environment and of `options`, which win.

    An option is named like its environment variable, without `FEED_` and in lower case: `ring_events=100`. Raises
    ConfigurationError for an unknown variable, and for a value that cannot work.
    """
    _check_names(options)
    given: dict[str, dict[str, object]] = {name: {} for name in groups()}
    for option, value in options.items():
        group, field = _OPTIONS[option]
        given[group][field] = value
    try:
        read: dict[str, Any] = {name: _read(kind, given[name]) for name, kind in groups().items()}
        return Settings(**read)
    except ValidationError as error:
        raise ConfigurationError(_reason(error)) from None


def _read(kind: type[Group], given: Mapping[str, object]) -> Group:
    """One group, from the environment and from what was given."""
    try:
        arguments: dict[str, Any] = {argument_of(name, kind.model_fields[name]): value for name, value in given.items()}
        return kind(**arguments)
    except ValidationError as error:
        raise ConfigurationError(_reason(error, kind)) from None


def _check_names(options: Mapping[str, object]) -> None:
    known = {*variables(), "FEED_KEY"}  # the commands that are clients read FEED_KEY
    for name in (*os.environ, *(f"{PREFIX}{option.upper()}" for option in options if option not in _OPTIONS)):
        if name.startswith(PREFIX) and name not in known:
            # Compared without the prefix, which would make any two names alike.
            options_known = [one.removeprefix(PREFIX) for one in known]
            near = difflib.get_close_matches(name.removeprefix(PREFIX), options_known, 1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ". Unset it, or correct its name."
            raise ConfigurationError(f"unknown setting {name}{hint}")


def _reason(error: ValidationError, kind: type[Group] | None = None) -> str:
    """The first thing that is wrong, with the name of its environment variable."""
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if kind is None or not first["loc"]:
        return message
    name = str(first["loc"][0])
    field = kind.model_fields.get(name)
    return f"the setting {name if field is None else variable_of(name, field)} is wrong: {message}"

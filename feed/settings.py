"""Every setting of the service, each with its unit; the environment names them `FEED_*` (and `DATABASE_URL`)."""

import difflib
import os
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feed.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]

_PREFIX = "FEED_"
_LISTS = ("cors_origins", "trusted_proxies", "limits_exempt")


def _data_dir() -> Path:
    """Where the service's own Postgres lives: the system's place for root, the user's own otherwise."""
    return Path("/var/lib/jobfeed") if os.geteuid() == 0 else Path(platformdirs.user_data_dir("jobfeed"))


class Settings(BaseSettings):
    """Read once at start-up, by `feed.cli` or by `feed.app:app`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, populate_by_name=True)

    # Database
    database_url: Annotated[str | None, Field(validation_alias=AliasChoices("FEED_DATABASE_URL", "DATABASE_URL"))] = (
        None
    )
    """Where the postings are; without it the service runs its own Postgres in `data_dir`."""
    data_dir: Path = Field(default_factory=_data_dir)
    db_schema: str = Field(default="feed", pattern=r"^[a-z_][a-z0-9_]{0,39}$", validation_alias="FEED_SCHEMA")
    """The schema that holds everything of the feed; also the name of its notification channel."""
    pool_size: Count = 8
    """Connections for lists, writes and replay, a process."""
    connect_timeout: Seconds = 5.0
    query_timeout: Seconds = 30.0
    """One statement of a list or a write."""
    reconnect_max: Seconds = 5.0
    """The longest wait between attempts to reach the database (jittered, doubling from 0.1 s)."""

    # Sequencer
    sequencer: bool = True
    """Whether this process may move the inbox to the log (one process at a time does)."""
    sequencer_interval: Seconds = 0.003
    """Between moves while there is work, in seconds."""
    sequencer_interval_busy: Seconds = 0.01
    """The same after a move of `sequencer_busy` rows: a larger batch costs the writers' machine less."""
    sequencer_busy: Count = 30
    sequencer_idle: Seconds = 0.03
    """Without work for so long, the sequencer arms the doorbell."""
    sequencer_poll_min: Seconds = 0.02
    sequencer_poll_max: Seconds = 0.25
    """Between looks at the inbox while older writers may not have seen the armed doorbell."""
    sequencer_batch: Count = 5_000
    """Positions moved in one transaction."""
    sequencer_lease: Seconds = 10.0
    """A leader that is silent for so long is ended by the server and another takes over."""
    leader_retry: Seconds = 1.0
    """Between a follower's attempts to become the leader."""
    doorbell: bool = True
    """Off: never ask writers to NOTIFY, only poll (for writers that PREPARE TRANSACTION)."""

    # Tailer
    tail_poll: Seconds = 1.0
    """The poll behind the doorbell, and the liveness check of the listener."""
    tail_timeout: Seconds = 3.0
    """A listener that does not answer for so long is given up."""
    tail_page: Count = 2_000
    """Events read from the log at once."""

    publish_events: Count = 200
    """Events handed to all subscribers in one turn of the event loop."""

    # Log
    retention: Seconds = 7 * 86_400.0
    """Age at which events leave the log, in seconds."""
    retention_events: Count | None = None
    """Events kept at the most; None: only age counts."""
    log_partition: Count = 250_000
    """Positions a partition of the log."""
    log_partitions_ahead: Count = 2
    housekeeping: Seconds = 60.0
    """Between rounds of retention, seconds."""
    expiry_interval: Seconds = 5.0
    """Between looks for postings past `valid_through`, seconds."""

    # Hub
    ring_events: Count = 20_000
    """Events kept in memory for replay."""
    ring_bytes: Bytes = 32 * 1024 * 1024
    history_page: Count = 500
    """Positions a page of replay read from the log."""
    history_cache: Bytes = 32 * 1024 * 1024
    """Pages kept in memory, counted as frames."""
    joined_bytes: Bytes = 32 * 1024 * 1024
    """Blocks of replay put together once for all subscribers with the same filter, in memory."""
    history_reads: Count = 4
    """Pages read from the database at the same time."""
    subscriber_buffer: Bytes = 256 * 1024
    """Unsent bytes a subscriber before it is served from the log at its own pace."""
    max_streams: Count = 20_000
    """Open streams a process; more are told to come back."""
    heartbeat: Seconds = 15.0
    send_timeout: Seconds = 30.0
    """A client that does not take a chunk for so long is cut off."""
    retry_min: Seconds = 2.0
    retry_max: Seconds = 5.0
    """Bounds of the jittered `retry`, seconds."""
    retry_busy: Seconds = 15.0
    """Upper bound of `retry` when the service is full or the database is away."""

    # Drain
    drain_window: Seconds = 5.0
    """Ends of streams are spread over at most this."""
    drain_rate: Count = 1_000
    """Streams ended a second, as far as the window allows."""
    drain_deadline: Seconds = 10.0
    """After this the streams that are left are cut."""
    drain_requests: Annotated[float, Field(gt=0, lt=3)] = 2.0
    """Seconds that other requests have after the drain; Hypercorn cancels them after 3."""

    # HTTP
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
    filter_values: Count = 100
    """Values in one filter."""

    # Access
    reading: Literal["open", "keys"] | None = None
    """Who may read; unless given: everybody where the service listens on loopback only, else holders of a credential."""
    writing: Literal["open", "keys"] | None = None
    """Who may write; unless given as for `reading`. `open` is refused on any address but loopback."""
    metrics: Literal["open", "keys"] | None = None
    """Who may read `/metrics`; unless given as for `reading`. Keys: of scope metrics or admin."""
    access_poll: Seconds = 1.0
    """Between looks for revocations, kicks and logouts; open streams end at the next."""
    key_cache: Seconds = 5.0
    """A key read from the database is good for so long without another look."""
    session_age: Seconds = 12 * 3600.0
    """A browser's session, at the longest."""
    session_same_site: Literal["strict", "lax", "none"] = "lax"
    """`SameSite` of its cookie; `none` lets pages of other sites of `cors_origins` send it."""
    ticket_age: Seconds = 30.0
    """From a ticket to its first use."""
    ticket_resume: Seconds = 3600.0
    """From its first use: so long its stream may come back with a last id and without a new ticket."""
    ticket_bound: bool = True
    """A ticket's stream may come back from the address of its first use only."""
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = None
    """Of the tokens (JWT) that are accepted; None: no tokens are."""
    jwt_key: SecretStr | None = None
    """The secret of HS256 (32 bytes at least), or a public key in PEM."""
    jwt_key_file: Path | None = None
    """A file with the same."""
    jwt_jwks_url: str | None = None
    """Where the keys are published (RFC 7517), instead of either."""
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway: Annotated[float, Field(ge=0, le=300)] = 10.0
    """Seconds that clocks may differ."""
    jwks_age: Seconds = 300.0
    """Between reads of the published keys; an unknown key id asks sooner, at most every ten seconds."""

    # Limits
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Networks of the proxies whose word on the client's address and scheme is taken, comma-separated."""
    proxy_protocol: bool = False
    """Connections from `trusted_proxies` begin with a PROXY header (version 1 or 2); plain connections only, no TLS."""
    limits_exempt: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = (
        IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"),
    )  # fmt: skip
    """Networks to which no limit by address applies."""
    streams_per_address: Count = 100
    """Open streams of one address, a process; more are told to come back later."""
    stream_rate: str = "60/minute"
    """New streams of one address, as `limits` writes it; more are told to come back later."""
    connections_per_address: Count = 200
    """Open connections of one address, a process; more are closed at once."""
    connection_rate: str = "50/second"
    """New connections of one address; more are closed at once."""
    handshake_timeout: Seconds = 10.0
    """A TLS handshake."""
    write_rate: str = "600/minute"
    """Writes (requests) of one key, or of one address where writing is open."""
    read_rate: str = "1200/minute"
    """Lists and reads of one address or key."""
    denied_rate: str = "30/minute"
    """Bad credentials of one address; then all of its credentials are refused for a while."""
    header_bytes: Bytes = 16 * 1024
    """The head of one request."""
    h2_control_rate: Count = 200
    """Frames of one HTTP/2 connection a second that ask for an answer and carry nothing (PING, SETTINGS, empty DATA)."""
    max_age: Seconds | None = None
    """A stream ends after so long, give or take a tenth, and comes back: to spread clients over new processes."""

    # Operators
    canary_interval: Seconds | None = None
    """Between heartbeat rows that take the whole way from a commit to a subscriber of the process's own; None: none."""
    canary_timeout: Seconds = 5.0
    """A canary that takes longer makes `/readyz` say so."""

    # Wire
    wire: bool = True
    """Off: streams go through sse-starlette and plain Hypercorn, as under any other server."""
    backlog: Count = 1024
    """Connections that may wait to be accepted."""
    write_buffer: Bytes = 32 * 1024
    """Unsent bytes of a connection in this process over which nothing more is pushed to it."""
    send_buffer: Bytes = 64 * 1024
    """SO_SNDBUF of each connection; the kernel doubles it."""
    peer_timeout: Seconds = 20.0
    """A peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT); silent ones are probed as often."""
    close_timeout: Seconds = 2.0
    """A connection that we close has so long to take what is left."""
    h2_streams: Count = 256
    """Streams a client may have open on one HTTP/2 connection."""
    h2_resets: Count = 1_000
    """Streams of one HTTP/2 connection that its client may reset in a row; then `h2_reset_rate` a second."""
    h2_reset_rate: Count = 20

    # Logs
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    log_streams: bool = True
    """One line for each stream at its end."""

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

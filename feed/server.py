"""The server behind `feed serve`: Hypercorn's configuration, the listening socket, signals, and the drain."""

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import structlog
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.typing import Framework

from feed.access.rates import Rates
from feed.app import create_app
from feed.errors import ConfigurationError, FeedError
from feed.http.address import bucket_of, is_within
from feed.service import Service
from feed.settings import Settings
from feed.wire.admission import Admission
from feed.wire.config import WireConfig
from feed.wire.connection import Connections
from feed.wire.install import installed
from feed.wire.turns import Turns

log = structlog.get_logger(__name__)


def listen(settings: Settings, *, reuse_port: bool = False) -> socket.socket:
    """The listening socket; port 0 takes a free one. Raises ConfigurationError where the address cannot be had.

    `reuse_port`: other sockets of this user that allow it too may have the same address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        raise cannot_listen(settings, error) from None
    _keep_short(sock, settings)
    sock.setblocking(False)
    return sock


def _keep_short(sock: socket.socket, settings: Settings) -> None:
    """Options that accepted connections inherit: silent peers are noticed, and the kernel holds little for slow ones."""
    probe = max(1, round(settings.peer_timeout / 4))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.peer_timeout * 1000)),
    ):
        sock.setsockopt(level, option, value)


def cannot_listen(settings: Settings, error: OSError) -> ConfigurationError:
    """What to say where the address cannot be had."""
    return ConfigurationError(
        f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
        "Is another server running there? Choose another with --port."
    )


def hypercorn_config(settings: Settings, sock: socket.socket, connections: Connections) -> Config:
    """Hypercorn as the feed needs it: HTTP/1.1 and HTTP/2 on one socket, no time-out that would end a stream."""
    config = WireConfig()
    config.write_buffer = settings.write_buffer
    config.send_timeout = settings.send_timeout
    config.close_timeout = settings.close_timeout
    config.h2_resets = settings.h2_resets
    config.h2_reset_rate = settings.h2_reset_rate
    config.h2_control_rate = settings.h2_control_rate
    config.header_bytes = settings.header_bytes
    config.h11_max_incomplete_size = settings.header_bytes
    config.h2_max_header_list_size = settings.header_bytes
    config.ssl_handshake_timeout = settings.handshake_timeout
    config.connections = connections
    config.admission = _admission(settings, connections)
    config.proxied = lambda address: settings.proxy_protocol and is_within(address, settings.trusted_proxies)
    config.crowds = lambda address: is_within(address, settings.trusted_proxies)
    config.begin = Turns()
    config.ends = Turns()
    config.frames = Turns(2)
    config.h2_max_concurrent_streams = settings.h2_streams
    config.backlog = settings.backlog
    config.bind = [f"fd://{sock.fileno()}"]
    config.alpn_protocols = ["h2", "http/1.1"]
    config.read_timeout = None
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")  # no handler of its own
    config.include_server_header = False
    if settings.certfile is not None:
        config.certfile = str(settings.certfile)
        config.keyfile = str(settings.keyfile)
    return config


def _admission(settings: Settings, connections: Connections) -> Admission:
    """Limits of connections by address; a proxy speaks for many, so none applies to it."""
    rates = Rates(settings)
    free = settings.limits_exempt + settings.trusted_proxies
    return Admission(
        settings.connections_per_address,
        lambda address: "" if is_within(address, free) else bucket_of(address),
        lambda bucket: rates.hit("connection", bucket),
        connections.refused,
    )


def serve(settings: Settings, started: Callable[[str, Service], None]) -> None:
    """Serve until SIGTERM or SIGINT, drain, and return. `started` is told the address once requests are answered."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(stop, settings, started)

    allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signalled())


def allow_files() -> None:
    """Let this process, and its children, open as many files as they may: every connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve_until(
    stop: asyncio.Event,
    settings: Settings,
    started: Callable[[str, Service], None],
    listener: socket.socket | None = None,
) -> None:
    """Serve in the running loop until `stop` is set, drain, and return; raises FeedError where it cannot start.

    `listener`, where there is one already, is closed at the end.
    """
    app = create_app(settings, drains=True)

    async def shutdown_trigger() -> None:
        started(address, app.state.service)
        await stop.wait()
        # Before Hypercorn learns of the end: once it has, the farewell of an HTTP/2 stream is lost (hypercorn #226).
        await app.drain()

    with listener or listen(settings) as sock:
        address = url_of(settings, sock)
        config = hypercorn_config(settings, sock, app.connections)
        sock.detach()  # Hypercorn owns it from here on
        try:
            with installed() if settings.wire else nullcontext(False) as by_wire:
                if by_wire:  # else its GOAWAY is the only defence against rapid resets
                    config.keep_alive_max_requests = sys.maxsize
                await hypercorn_serve(cast("Framework", app), config, shutdown_trigger=shutdown_trigger)
        except BaseException:
            refusal = getattr(app.state, "refusal", None)
            if isinstance(refusal, FeedError):
                raise refusal from None
            raise


def url_of(settings: Settings, sock: socket.socket) -> str:
    """Where a server on `sock` is found from this machine."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if sock.family is socket.AF_INET else "::1"
    scheme = "https" if settings.certfile is not None else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for trying out TLS, valid for a year, for `host` and this machine: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "feed (self-signed)")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    for address in {"127.0.0.1", "::1", host}:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    certfile, keyfile = folder / "self-signed.pem", folder / "self-signed.key"
    certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    keyfile.touch(mode=0o600)
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile

"""The listening sockets: one for a process that serves alone, or one for each worker on the same address (SO_REUSEPORT)."""

import ipaddress
import resource
import socket
from contextlib import suppress

from feed.errors import ConfigurationError
from feed.settings.http import ListenSettings
from feed.settings.settings import Settings


def listen(settings: ListenSettings, user_timeout: float, *, reuse_port: bool = False) -> socket.socket:
    """Return the listening socket, bound and not listening yet; port 0 takes a free one.

    `user_timeout` is TCP_USER_TIMEOUT in seconds (`user_timeout_of`). `reuse_port` lets other sockets of this user that
    allow it too have the same address. Raises ConfigurationError where the address cannot be had.
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
        raise _cannot_listen(settings, error) from None
    _set_options(sock, settings, user_timeout)
    sock.setblocking(False)
    return sock


def listeners_of(settings: ListenSettings, user_timeout: float) -> list[socket.socket]:
    """A listening socket for each worker, all on one address; raises ConfigurationError where it cannot be had.

    The first one is made without SO_REUSEPORT: it would let us in beside another server of the same user.
    """
    first = listen(settings, user_timeout)
    try:
        first.listen(settings.backlog)
    except OSError as error:
        raise _cannot_listen(settings, error) from None
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    here = settings.model_copy(update={"port": first.getsockname()[1]})
    others = [listen(here, user_timeout, reuse_port=True) for _ in range(settings.workers - 1)]
    for other in others:
        other.listen(settings.backlog)
    return [first, *others]


def user_timeout_of(settings: Settings) -> float:
    """Return after how many seconds the kernel gives a connection up whose peer acknowledges nothing (TCP_USER_TIMEOUT).

    The kernel counts peers that acknowledge but keep their window shut as well. `hypercorn_adapter/peers.py` tells these
    apart; without it they must have `send_timeout`.
    """
    gone = settings.listen.peer_timeout
    return gone if settings.wire.enabled else gone + settings.streams.send_timeout


def _set_options(sock: socket.socket, settings: ListenSettings, user_timeout: float) -> None:
    """Set what accepted connections inherit: silent peers are noticed, and the kernel holds little for slow ones."""
    probe = max(1, round(settings.peer_timeout / 4))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout * 1000)),
    ):
        sock.setsockopt(level, option, value)


def _cannot_listen(settings: ListenSettings, error: OSError) -> ConfigurationError:
    """What to say where the address cannot be had."""
    return ConfigurationError(
        f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
        "Is another server running there? Choose another with --port."
    )


def url_of(settings: ListenSettings, sock: socket.socket) -> str:
    """Where a server on `sock` is found from this machine."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if sock.family is socket.AF_INET else "::1"
    scheme = "https" if settings.certfile is not None else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def allow_files() -> None:
    """Let this process, and its children, open as many files as they may: every connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

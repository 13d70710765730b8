"""The listening sockets: one for a process that serves alone, or one for each worker on the same address (SO_REUSEPORT)."""

import ipaddress
import resource
import socket
from contextlib import suppress

from feed.errors import ConfigurationError
from feed.settings.settings import Settings


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
        raise _cannot_listen(settings, error) from None
    _keep_short(sock, settings)
    sock.setblocking(False)
    return sock


def listeners_of(settings: Settings) -> list[socket.socket]:
    """A listening socket for each worker, all on one address; raises ConfigurationError where it cannot be had.

    The first one is made without SO_REUSEPORT: it would let us in beside another server of the same user.
    """
    first = listen(settings)
    try:
        first.listen(settings.backlog)
    except OSError as error:
        raise _cannot_listen(settings, error) from None
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    here = settings.model_copy(update={"port": first.getsockname()[1]})
    others = [listen(here, reuse_port=True) for _ in range(settings.workers - 1)]
    for other in others:
        other.listen(settings.backlog)
    return [first, *others]


def _keep_short(sock: socket.socket, settings: Settings) -> None:
    """Options that accepted connections inherit: silent peers are noticed, and the kernel holds little for slow ones."""
    gone = settings.peer_timeout
    if (
        not settings.wire
    ):  # nobody tells those that are slow to read from those that are gone (hypercorn_adapter/peers.py)
        gone += settings.send_timeout
    probe = max(1, round(settings.peer_timeout / 4))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(gone * 1000)),
    ):
        sock.setsockopt(level, option, value)


def _cannot_listen(settings: Settings, error: OSError) -> ConfigurationError:
    """What to say where the address cannot be had."""
    return ConfigurationError(
        f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
        "Is another server running there? Choose another with --port."
    )


def url_of(settings: Settings, sock: socket.socket) -> str:
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

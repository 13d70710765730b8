"""Hypercorn's configuration, from feed's settings."""

import logging
import socket
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from hypercorn.config import Config

from feed.http.address import bucket_of, is_within
from feed.http.stream import PATH
from feed.hypercorn_adapter.admission import Admission
from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import Connections
from feed.hypercorn_adapter.peers import Peers
from feed.hypercorn_adapter.refusals import Refusals
from feed.limits.rates import Rates
from feed.settings.settings import Settings
from feed.wire.native.fanout_writer import choose_writer
from feed.wire.pacer import Pacer

_REMEMBERED = 10_000
"""Addresses of which it is remembered what limits count them as."""
_STREAM = PATH.encode()


def hypercorn_config(settings: Settings, sock: socket.socket, connections: Connections) -> Config:
    """Hypercorn as the feed needs it: HTTP/1.1 and HTTP/2 on one socket, no time-out that would end a stream."""
    config = WireConfig()
    config.write_buffer = settings.wire.write_buffer
    config.native = choose_writer(settings.wire.fanout_writer).extension
    config.send_timeout = settings.streams.send_timeout
    config.close_timeout = settings.wire.close_timeout
    config.h2_resets = settings.wire.h2_resets
    config.h2_reset_rate = settings.wire.h2_reset_rate
    config.h2_control_rate = settings.wire.h2_control_rate
    config.header_bytes = settings.wire.header_bytes
    config.h11_max_incomplete_size = settings.wire.header_bytes
    config.h2_max_header_list_size = settings.wire.header_bytes
    config.ssl_handshake_timeout = settings.listen.handshake_timeout
    config.connections = connections
    config.admission = _admission(settings, connections)
    config.peers = Peers(settings.streams.send_timeout, settings.listen.peer_timeout)
    config.refusals = _refusals(settings)
    config.is_stream = is_stream
    config.proxied = lambda address: settings.proxies.proxy_protocol and is_within(address, settings.proxies.trusted)
    config.crowds = lambda address: is_within(address, settings.proxies.trusted)
    config.begin = Pacer()
    config.ends = Pacer()
    config.frames = Pacer(2)
    config.h2_max_concurrent_streams = settings.wire.h2_streams
    config.backlog = settings.listen.backlog
    config.bind = [f"fd://{sock.fileno()}"]
    config.alpn_protocols = ["h2", "http/1.1"]
    config.read_timeout = None
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")  # no handler of its own
    config.include_server_header = False
    if settings.listen.certfile is not None:
        config.certfile = str(settings.listen.certfile)
        config.keyfile = str(settings.listen.keyfile)
    return config


def _admission(settings: Settings, connections: Connections) -> Admission:
    """Limits of connections by address; a proxy speaks for many, so none applies to it."""
    rates = Rates(settings.limits)
    return Admission(
        settings.limits.connections_per_address,
        _buckets(settings),
        lambda bucket: rates.hit("connection", bucket),
        connections.refused,
    )


def _refusals(settings: Settings) -> Refusals:
    """Rations of refusals; a proxy's connection has as many as if each stream on it were another client's."""
    return Refusals(
        settings.limits.refusals,
        settings.limits.refusal_rate,
        _buckets(settings),
        lambda address: is_within(address, settings.proxies.trusted),
        settings.wire.h2_streams,
    )


def _buckets(settings: Settings) -> Callable[[str], str]:
    """Return what tells as what limits of connections count an address; an empty text where none applies."""
    free = settings.limits.exempt + settings.proxies.trusted
    return lru_cache(_REMEMBERED)(lambda address: "" if is_within(address, free) else bucket_of(address))


def is_stream(target: bytes) -> bool:
    """Return whether a request's target leads to the stream, however it is written."""
    path = target.partition(b"?")[0]
    return (unquote_to_bytes(path) if b"%" in path else path) == _STREAM

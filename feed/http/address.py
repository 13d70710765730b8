"""The client's address and scheme, from the socket and from the headers of trusted proxies (RFC 7239, `X-Forwarded-*`).

Anybody can send these headers, and a proxy appends to what it was sent: only the end of a list is its own. So the list is
read from the right, and only for as long as the hop that wrote an element is trusted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

_SIGNS = frozenset({b"forwarded", b"x-real-ip", b"via"})
_SECURE = {"http": False, "https": True}

_REMEMBERED = 10_000
"""Addresses of which it is remembered what they mean: clients send many requests each."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from."""

    address: str
    """The address without a port, IPv4-mapped IPv6 as IPv4; empty if the server does not know it."""
    secure: bool
    """Whether the client came over TLS."""
    forwarded: bool
    """Whether the request has a header that proxies add, from a trusted proxy or not."""


def origin_of(scope: Mapping[str, Any], trusted: tuple[Network, ...], believed: str = "x-forwarded-for") -> Origin:
    """Return the origin of a request from its ASGI scope; never raises, whatever the headers hold.

    `believed` is the one header that trusted proxies set, `x-forwarded-for` (with `-proto`) or `forwarded`: another they may
    pass on as a client made it up.
    """
    client = scope.get("client")
    address = _plain(client[0].partition("%")[0]) or client[0] if client else ""
    secure = scope.get("scheme") in ("https", "wss")
    headers = scope.get("headers", ())
    forwarded = any(name in _SIGNS or name.startswith(b"x-forwarded-") for name, _ in headers)
    if not trusted or not is_within(address, trusted):
        return Origin(address, secure, forwarded)
    for said, scheme in _hops(headers, believed):
        secure = _SECURE.get(scheme, secure)
        if said is None:
            break
        address = said
        if not is_within(address, trusted):
            break
    return Origin(address, secure, forwarded)


@lru_cache(_REMEMBERED)
def bucket_of(address: str) -> str:
    """Return the key under which limits count an address. An IPv6 client may use a whole /64, so that is one key."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address, IPv4-mapped or not, is in one of the networks."""
    plain = _plain(address.partition("%")[0]) if networks else None
    if plain is None:
        return False
    found = ip_address(plain)
    return any(found in network for network in networks)


def _hops(headers: Any, believed: str) -> Iterator[tuple[str | None, str]]:
    """Yield what the headers say of each hop, the nearest first: the address that it saw, or None, and the scheme."""
    if believed == "forwarded":
        for element in _from_right(_joined(headers, b"forwarded") or "", ","):
            yield _hop(element)
        return
    schemes = _listed(_joined(headers, b"x-forwarded-proto"))
    addresses = _listed(_joined(headers, b"x-forwarded-for")) or [""]
    for place, said in enumerate(addresses):
        yield _node(said), schemes[place].lower() if place < len(schemes) else ""


def _listed(text: str | None) -> list[str]:
    """Return the elements of a list without quotes, the last one first."""
    return [] if text is None else [element.strip() for element in reversed(text.split(","))]


def _hop(element: str) -> tuple[str | None, str]:
    """Return the `for` of an element of `Forwarded` as an address, or None, and its `proto`."""
    pairs: dict[str, str] = {}
    if "\\" in element:
        return None, ""  # valid elements need no backslash, and read from the right it is ambiguous what it escapes
    for pair in _from_right(element, ";"):
        name, found, value = pair.partition("=")
        name = name.strip().lower()
        if not found or name in pairs:
            return None, ""
        value = value.strip()
        if value.startswith('"') and value.endswith('"') and len(value) > 1:
            value = value[1:-1]
        if '"' in value:
            return None, ""
        pairs[name] = value
    return _node(pairs.get("for", "")), pairs.get("proto", "").lower()


def _node(text: str) -> str | None:
    """Return the address in `192.0.2.1:80`, `[2001:db8::1]:80` or `2001:db8::1`, without a port; None for anything else."""
    if text.startswith("["):
        inner, closed, port = text[1:].partition("]")
        return _plain(inner) if closed and ":" in inner and (not port or port.startswith(":")) else None
    if text.count(":") == 1:
        text = text.partition(":")[0]
    return _plain(text)


@lru_cache(_REMEMBERED)
def _plain(text: str) -> str | None:
    """Return an address in its shortest form, IPv4-mapped IPv6 as IPv4; None if `text` is no address."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return None
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
    return str(found)


def _joined(headers: Any, wanted: bytes) -> str | None:
    """Return all lines of a header as one list (RFC 9110, 5.3); None if the header is absent."""
    lines = [value for name, value in headers if name == wanted]
    return b",".join(lines).decode("latin-1") if lines else None


def _from_right(text: str, separator: str) -> Iterator[str]:
    """Yield the parts of `text` between separators that are not quoted, the last one first.

    From the right a quote that a client left open on the left swallows nothing of what the proxies wrote behind it.
    """
    end, quoted = len(text), False
    for place in range(len(text) - 1, -1, -1):
        if text[place] == '"':
            quoted = not quoted
        elif text[place] == separator and not quoted:
            yield text[place + 1 : end].strip()
            end = place
    yield text[:end].strip()

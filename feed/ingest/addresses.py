"""Which addresses may be connected to: none that only this machine, its network or its provider knows."""

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from feed.ingest.adapter import FetchError

Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_MOST = 3
"""Addresses of one host that are tried."""
_THREADS = 4
"""Names that are resolved at a time."""


class Addresses:
    """Resolves names, and leaves out what must not be connected to. `allowed` are private networks that may be.

    Names are resolved in threads of its own: one that takes for ever must not hold up what else the process resolves, such
    as its database.
    """

    def __init__(self, allowed: Iterable[IPv4Network | IPv6Network]) -> None:
        self._allowed = tuple(allowed)
        self._threads = ThreadPoolExecutor(_THREADS, "resolving")

    def close(self) -> None:
        """Wait for no name any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def of(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to, the best first.

        Whoever connects must use these, and not the name again: it may have another address by then (DNS rebinding).
        Raises FetchError where the name is not known, or none of its addresses may be connected to.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _resolve, host, port)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"the host {host} cannot be found: {error}", "network") from None
        addresses = list(dict.fromkeys(found))
        good = [address for address in addresses if self.may_connect(address)]
        if not good:
            raise FetchError(
                f"the host {host} has the address {addresses[0]}, which is not public. "
                "FEED_INGEST_ALLOW_NETWORKS names private networks that may be fetched from.",
                "private_address",
            )
        return good[:_MOST]

    def may_connect(self, text: str) -> bool:
        """Return whether an address is public, or in a network that is allowed."""
        if "%" in text:  # an address of one link
            return False
        address = _meant(ip_address(text))
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        return address.is_global and not address.is_multicast and not address.is_reserved


def _resolve(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address

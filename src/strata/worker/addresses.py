"""Addresses: where a message may be sent. Whoever runs the worker says so, never who declares a hook.

Left to itself a hook could ask for what only this machine or its network may reach: a database without a
password, the metadata of a cloud, which gives out keys. So only public addresses are let through; what is
looked at is the very address that is then connected to, as a name may stand for another one a moment later.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from strata.core.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IPv6 addresses that stand for one of IPv4, which is then where they lead: NAT64, and local use of it.
_NAT64: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/96")))
# Public by their numbers, and metadata all the same: Azure's.
_METADATA: Final = frozenset({ipaddress.IPv4Address("168.63.129.16")})
_IPV4_BITS: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be asked besides public addresses over https.

    Args:
        private: addresses of this machine and of private networks, also over http. Link-local ones, where
            clouds have their metadata, are none of these.
        networks: these, whatever they are, also over http.
        http: http to public addresses.
    """

    private: bool = False
    networks: tuple[Network, ...] = ()
    http: bool = False

    def is_open(self, address: Address, scheme: str) -> bool:
        """Return whether an address may be connected to."""
        where = _target(address)
        is_own = any(where in network for network in self.networks)
        is_own = is_own or (self.private and _is_private(where))
        return is_own or (_is_public(where) and (scheme == "https" or self.http))


def network_of(text: str) -> Network:
    """Return a network, as in 10.1.0.0/16, or of one address.

    Raises: InvalidInput.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no network: {error}", hint="as in 10.1.0.0/16") from None


def _target(address: Address) -> Address:
    """Return the address that one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & _IPV4_BITS)
    if int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, which was once another such form
        return ipaddress.IPv4Address(int(address))
    return address


def _is_public(address: Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not is_special and not is_site_local and address not in _METADATA


def _is_private(address: Address) -> bool:
    is_special = address.is_multicast or address.is_link_local or address.is_unspecified
    return not is_special and (address.is_loopback or (address.is_private and not address.is_reserved))

"""To which addresses audio is negotiated. Pure.

Whoever joins names addresses for the server to send checks to. It must not reach what only the
server reaches: the services of its own machine and cloud, and networks that it is not in.
"""

from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where clouds tell a machine its own secrets, as far as the ranges below do not have it.
_METADATA = [ip_network(n) for n in ("168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128")]
# For those who are in them: private ones, a provider's, and those of documents and tests.
_SPECIAL = [
    ip_network(n)
    for n in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "198.18.0.0/15",
        "::1/128",
        "fc00::/7",
        "2001:db8::/32",
    )
]
_NAT64 = ip_network("64:ff9b::/96")
_6TO4 = ip_network("2002::/16")


def admitting(allowed: Sequence[str], own: Sequence[str]) -> Callable[[str], bool]:
    """Whether an address is one of `allowed`; with none given, whether it is public, or in a
    range in which this machine has one of its `own`."""
    networks = [ip_network(network) for network in allowed]
    ours = [_plain(ip_address(address)) for address in own]
    inside = [network for network in _SPECIAL if any(address in network for address in ours)]

    def admits(text: str) -> bool:
        address = _plain(ip_address(text.partition("%")[0]))
        if address.is_multicast or address.is_unspecified:
            return False
        if networks:
            return _is_in(address, networks)
        if address.is_link_local or _is_in(address, _METADATA):
            return False
        return _is_in(address, inside) or (address.is_global and not _is_in(address, _SPECIAL))

    return admits


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _plain(address: Address) -> Address:
    """The IPv4 address that one of IPv6 stands for."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4 and address.sixtofour is not None:
            return address.sixtofour
    return address

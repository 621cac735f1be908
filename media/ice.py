"""Where a peer may be met: on which addresses of ours, and on which of theirs. Holds for the whole
process, and touches private parts of aioice, which leaves loopback out of its host addresses and
has no setting for either.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import aioice.ice
import ifaddr

from media.networks import admitting

CONSENT_FAILURES = 5
# A machine may move into another network.
_LOOK_EVERY_S = 10.0


def gather_on(addresses: Sequence[str], *, loopback: bool) -> list[str]:
    """Gather host candidates on `addresses`; with none given, on every interface, and on
    loopback too if `loopback`. Returns those of now."""

    def host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        if addresses:
            return [a for a in addresses if (use_ipv6 if ":" in a else use_ipv4)]
        found = interface_addresses(use_ipv4, use_ipv6)
        return [*found, "127.0.0.1"] if loopback and use_ipv4 else found

    aioice.ice.get_host_addresses = host_addresses
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES
    return host_addresses(True, True)


def interface_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Those of this machine, but for loopback and link-local ones."""
    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                if use_ipv4 and not ip.ip.startswith("127."):
                    found.append(ip.ip)
            elif use_ipv6 and ip.ip[0] != "::1" and ip.ip[2] == 0:
                # a scope (link-local) cannot be bound without its interface
                found.append(ip.ip[0])
    return found


_validate = aioice.ice.validate_remote_candidate


def _everyone(_address: str) -> bool:
    return True


_admits_who_comes: Callable[[str], bool] = _everyone


def may_come(address: str) -> bool:
    """Whether one may be sent to who was not announced, but sends from there. Where the networks
    are given, those; else whoever gets here may be answered."""
    return _admits_who_comes(address)


def meet_only(
    allowed: Sequence[str], gathered_on: Sequence[str], refused: Callable[[], None]
) -> None:
    """Send nothing to a candidate's address that is not admitted (`media.networks`) for a machine
    with the addresses that it has now; `refused` hears of each. It is the address that is used: of
    a name in `.local`, what it was resolved to."""
    global _admits_who_comes
    known_at, admits = -_LOOK_EVERY_S, admitting(allowed, gathered_on)
    _admits_who_comes = admits if allowed else _everyone

    def validate(candidate: Any, host: str) -> str:
        nonlocal known_at, admits
        address = _validate(candidate, host)
        if (now := time.monotonic()) - known_at >= _LOOK_EVERY_S:
            known_at = now
            admits = admitting(allowed, [*gathered_on, *interface_addresses(True, True)])
        if not admits(address):
            refused()
            raise ValueError("not an address to send to")
        return address

    aioice.ice.validate_remote_candidate = validate

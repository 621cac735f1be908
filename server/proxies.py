"""What a proxy says of a request that it passes on: believed of those that are trusted alone."""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from aiohttp import web
from aiohttp.typedefs import Middleware

_SCHEMES = ("http", "https")


def believe(proxies: Sequence[str]) -> Middleware:
    """A middleware: a request that came by one of these has the address, scheme and host that its
    sender had."""
    trusted = [ip_network(proxy) for proxy in proxies]

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if trusted and _is_in(request.remote or "", trusted):
            request = _as_sent(request, trusted)
        return await handler(request)

    return middleware


def _as_sent(request: web.Request, trusted: list[IPv4Network | IPv6Network]) -> web.Request:
    """Proxies append: the last address that is not one of them is the sender's."""
    told = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    senders = [address.strip() for address in told if address.strip()]
    remote = next((a for a in reversed(senders) if not _is_in(a, trusted)), None)
    scheme = request.headers.get("X-Forwarded-Proto", "").lower()
    # of several proxies' the one that the last of them put there
    host = request.headers.get("X-Forwarded-Host", "").rpartition(",")[2].strip()
    return request.clone(
        remote=remote if remote is not None and _is_address(remote) else request.remote or "",
        scheme=scheme if scheme in _SCHEMES else request.scheme,
        # `request.host` would ask the system for a name where none was told
        host=host or request.headers.get("Host", ""),
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    if not _is_address(address):
        return False
    ip = ip_address(address)
    return any(ip in network for network in networks)

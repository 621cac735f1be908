"""Which site's page sends a request: browsers say so, programs do not."""

from aiohttp import web

from signaling.errors import Refused


def check_origin(request: web.Request, allowed: frozenset[str]) -> None:
    """No other site's script may join rooms or change anything with the network of whoever visits
    it. Raises `Refused`."""
    origin = request.headers.get("Origin")
    if origin is None or origin.lower() in allowed:
        return
    # without a header `request.host` would ask the system, and wait for it
    host = request.host if "Host" in request.headers else ""
    if origin.partition("://")[2].lower() != host.lower():
        raise Refused("bad_origin", "this page belongs to another site", status=403)

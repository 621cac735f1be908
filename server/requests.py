"""What is read of a request, whoever answers it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from server.settings import is_loopback
from signaling.errors import Refused
from signaling.origin import check_origin

BODY_S = web.AppKey("body_s", float)
NOTE_LIMIT: web.AppKey[Callable[[str], None]] = web.AppKey("note_limit")
_BY_A_PROXY = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@web.middleware
async def here_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Where the doors are open because nobody but this machine comes: a proxy brings others, and
    so does a site whose name its owner lets stand for 127.0.0.1. That one asks for its own host,
    and most proxies say what they are."""
    host = request.headers.get("Host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if not is_loopback(name.strip("[]")) or any(
        header in request.headers for header in _BY_A_PROXY
    ):
        raise Refused(
            "open_here_only",
            "without AUTH__SECRET or --open-to-everyone this server is for its own machine only",
            status=403,
        )
    return await handler(request)


def of_this_site(allowed: frozenset[str]) -> Middleware:
    """A middleware: no other site's page does something here by the network of whoever visits it.
    What it reads, browsers keep from it."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.method in _UNSAFE:
            check_origin(request, allowed)
        return await handler(request)

    return middleware


async def json_body(request: web.Request) -> dict[str, Any]:
    """Raises `Refused`."""
    try:
        async with asyncio.timeout(request.app[BODY_S]):
            body = await request.json()
    except TimeoutError:
        request.app[NOTE_LIMIT]("body_s")
        raise Refused("too_slow", "the body did not come in time", status=408) from None
    except web.RequestPayloadError:
        raise Refused("bad_request", "the body is not encoded as its headers say") from None
    except (ValueError, LookupError, RecursionError):
        raise Refused("bad_request", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused("bad_request", "the body is not a JSON object")
    return body

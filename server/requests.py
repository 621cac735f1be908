"""What is read of a request, whoever answers it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from signaling.errors import Refused

_BODY_S = 10.0
_HERE = {"localhost", "127.0.0.1", "[::1]"}


@web.middleware
async def here_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Where the doors are open because nobody but this machine comes: a proxy brings others, and
    so does a site whose name its owner lets stand for 127.0.0.1. Both ask for another host."""
    host = request.headers.get("Host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in _HERE:
        raise Refused(
            "open_here_only",
            "without AUTH__SECRET or --open-to-everyone this server is for its own machine only",
            status=403,
        )
    return await handler(request)


async def json_body(request: web.Request) -> dict[str, Any]:
    """Raises `Refused`."""
    try:
        async with asyncio.timeout(_BODY_S):
            body = await request.json()
    except TimeoutError:
        raise Refused("too_slow", "the body did not come in time", status=408) from None
    except (ValueError, LookupError, RecursionError):
        raise Refused("bad_request", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused("bad_request", "the body is not a JSON object")
    return body

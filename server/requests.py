"""What is read of a request, whoever answers it."""

import asyncio
from typing import Any

from aiohttp import web

from signaling.errors import Refused

_BODY_S = 10.0


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

"""The token of a request, as RFC 6750 has it: in a header, which no log keeps."""

from aiohttp import web


def bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None

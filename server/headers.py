"""What every answer tells a browser to refuse. No cookie is ever set."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

_HSTS_S = 31_536_000


def guard(
    embedded_by: Sequence[str], *, hsts: bool
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For `on_response_prepare`. `embedded_by` may show the pages in a frame; `hsts` where this
    server has a certificate that browsers know."""
    ancestors = " ".join(embedded_by) or "'none'"
    headers = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {ancestors}",
        "Server": "roomscribe",  # not which version of what
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if not embedded_by:
        headers["X-Frame-Options"] = "DENY"
    if hsts:
        headers["Strict-Transport-Security"] = f"max-age={_HSTS_S}"

    async def prepare(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)

    return prepare

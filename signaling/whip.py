"""WHIP (RFC 9725): a speaker who only sends, over HTTP. The peer is all there is of them."""

import asyncio

from aiohttp import web

from signaling import messages
from signaling.bearer import bearer
from signaling.errors import Refused
from signaling.grant import Right
from signaling.seat import JoinRequest, Lobby, Seat

_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"


async def offer(request: web.Request, lobby: Lobby) -> web.Response:
    """`POST /whip/{room}`. Raises `Refused`."""
    room = messages.check_room(request.match_info["room"])
    name = messages.check_name(request.query.get("name", "WHIP"))
    sdp = await _body(request, _SDP, lobby)
    messages.check_sdp(sdp, lobby.bounds, lobby.note_limit)
    _check_offer(sdp)
    seat = await lobby.join(
        JoinRequest(
            room,
            name,
            request.query.get("language"),
            has_socket=False,
            token=bearer(request),
            needs=Right.PUBLISH,
            address=request.remote or "",
        )
    )
    try:
        answer = await seat.answer(sdp)
    except BaseException:
        seat.leave("bad_offer")
        raise
    location = f"/whip/{room}/{seat.resume}"
    return web.Response(
        status=201,
        text=answer,
        content_type=_SDP,
        headers={"Location": location, "Accept-Patch": _FRAGMENT, "ETag": f'"{seat.participant}"'},
    )


async def trickle(request: web.Request, lobby: Lobby) -> web.Response:
    """`PATCH` on the location. Raises `Refused`."""
    seat = _seat(request, lobby)
    if request.headers.get("If-Match") == "*":
        # RFC 9725 4.3.2: this asks for an ICE restart
        raise Refused("no_ice_restart", "ICE restarts are not supported", status=422)
    mid: str | None = None
    for line in (await _body(request, _FRAGMENT, lobby)).splitlines():
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:").strip()
        elif line.startswith("a=candidate:"):
            await seat.add_candidate(line.removeprefix("a=").strip(), mid)
    return web.Response(status=204)


async def end(request: web.Request, lobby: Lobby) -> web.Response:
    """`DELETE` on the location. Raises `Refused`."""
    _seat(request, lobby).leave("left")
    return web.Response(status=200)


async def options(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers={"Accept-Post": _SDP, "Accept-Patch": _FRAGMENT})


def _seat(request: web.Request, lobby: Lobby) -> Seat:
    seat = lobby.find_seat(request.match_info["room"], request.match_info["session"])
    if seat is None:
        raise Refused("no_such_session", "there is no such session", status=404)
    return seat


def _check_offer(sdp: str) -> None:
    """Before a room is opened for it: the peer, which parses it, comes after the seat."""
    if not sdp.startswith("v=0"):
        raise Refused("bad_sdp", "the offer is not SDP")
    if not any(line.startswith("m=audio ") for line in sdp.splitlines()):
        raise Refused("no_audio", "the offer has no audio")


async def _body(request: web.Request, content_type: str, lobby: Lobby) -> str:
    most = lobby.bounds.sdp_bytes
    if request.content_type != content_type:
        raise Refused("bad_content_type", f"the body must be {content_type}", status=415)
    try:
        async with asyncio.timeout(lobby.bounds.body_s):
            body = await request.content.read(most + 1)
            while len(body) <= most and (more := await request.content.read(most)):
                body += more
    except TimeoutError:
        lobby.note_limit("body_s")
        raise Refused("too_slow", "the body did not come in time", status=408) from None
    except web.RequestPayloadError:
        raise Refused("bad_sdp", "the body is not encoded as its headers say") from None
    if len(body) > most:
        lobby.note_limit("sdp_bytes")
        raise Refused("too_large", f"the body is larger than {most} bytes", status=413)
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused("bad_sdp", "the body is not UTF-8") from None

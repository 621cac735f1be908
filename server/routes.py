"""Every HTTP route. Bad requests become error bodies here; nothing of the host is in them."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.log import server_logger
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from server import machine, sse, wire
from server.headers import guard
from server.lobby import Lobby, summary
from server.observer import Observer
from server.owner import Owner
from server.proxies import believe
from server.requests import BODY_S, NOTE_LIMIT, here_only, of_this_site
from server.store import EndedRoom, StoreError
from server.talk import Talk
from signaling import whip, ws
from signaling.bearer import bearer
from signaling.errors import Refused
from signaling.grant import EVERY_ROOM, Grant, Right
from signaling.messages import check_room
from transcriber import transcript as exports
from transcriber.types import EngineState

STATIC = Path(__file__).resolve().parent.parent / "static"
_PAGES = {".html", ".css", ".js", ".svg", ".png"}

log = logging.getLogger("roomscribe.http")


class Routes:
    def __init__(self, lobby: Lobby, observer: Observer, talk: Talk) -> None:
        self._lobby = lobby
        self._house = lobby.house
        self._observer = observer
        self._talk = talk

    def application(self) -> web.Application:
        server_logger.addFilter(_is_fault_of_ours)
        settings = self._house.settings
        app = web.Application(
            middlewares=[
                believe(settings.server.trusted_proxies),
                _errors,
                *([here_only] if self._house.doors.is_for_this_machine else []),
                of_this_site(self._lobby.bounds.origins),
            ],
            client_max_size=256 * 1024,
        )
        app[BODY_S] = settings.limits.body_s
        app[NOTE_LIMIT] = self._lobby.note_limit
        app.on_response_prepare.append(
            guard(settings.server.embedded_by, hsts=settings.server.tls not in ("", "auto"))
        )
        app.add_routes(
            [
                web.get("/", self.start_page),
                web.get("/r/{room}", self.room_page),
                web.get("/static/{path:.+}", self.asset),
                web.get("/favicon.ico", self.favicon),
                web.get("/healthz", self.health),
                web.get("/readyz", self.ready),
                web.get("/metrics", self.metrics),
                web.get("/api/v1/rooms", self.rooms),
                web.get("/api/v1/rooms/{room}", self.room),
                web.get("/api/v1/rooms/{room}/ws", self.socket),
                web.get("/api/v1/rooms/{room}/captions", self.captions),
                web.get("/api/v1/rooms/{room}/transcript.{kind:json|srt|vtt|txt}", self.transcript),
                web.post("/whip/{room}", self.whip_offer),
                web.options("/whip/{room}", whip.options),
                web.patch("/whip/{room}/{session}", self.whip_trickle),
                web.delete("/whip/{room}/{session}", self.whip_end),
                *Owner(self._lobby).routes(),
                *self._talk.routes(),
            ]
        )
        return app

    async def start_page(self, _request: web.Request) -> web.StreamResponse:
        return _file("index.html")

    async def room_page(self, request: web.Request) -> web.StreamResponse:
        """The page, also of a bad name: it tells a person what is wrong with it."""
        try:
            check_room(request.match_info["room"])
        except Refused as error:
            return _file("room.html", error.status)
        return _file("room.html")

    async def asset(self, request: web.Request) -> web.StreamResponse:
        return _file(request.match_info["path"])

    async def favicon(self, _request: web.Request) -> web.StreamResponse:
        return _file("favicon.svg")

    async def health(self, _request: web.Request) -> web.Response:
        status = self._house.engine.status
        healthy = status.state is EngineState.READY and self._house.store.health.ok
        return web.json_response(
            {
                "status": "healthy" if healthy else "degraded",
                "rooms": len(self._lobby.rooms),
                "speakers": self._observer.speakers(),
                "memory_mb": round(machine.resident_bytes() / 1e6, 1),
                "engine": {
                    "name": status.info.name,
                    "state": status.state.value,
                    "model": status.info.model,
                },
                "timestamp": wire.iso(time.time()),
            }
        )

    async def ready(self, _request: web.Request) -> web.Response:
        """503 when speakers would not get captions. A store that fails is said too, but those
        who come can still be transcribed."""
        store = self._house.store.health
        body: dict[str, object] = {"ready": True, "store": store.reason or "ok"}
        if not self._lobby.is_open:
            raise Refused(
                "shutting_down", "the server is shutting down", retryable=True, status=503
            )
        state = self._house.engine.status.state
        if state is not EngineState.READY:
            raise Refused(
                "engine_not_ready", f"the engine is {state.value}", retryable=True, status=503
            )
        if self._house.admission.reason is not None:
            raise Refused(
                "full",
                f"no more speakers fit: {self._house.admission.reason}",
                retryable=True,
                status=503,
            )
        return web.json_response(body)

    async def metrics(self, _request: web.Request) -> web.Response:
        self._observer.collect()
        return web.Response(
            body=self._house.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def rooms(self, request: web.Request) -> web.Response:
        """Those for which the token is."""
        grant = await self._house.doors.check(bearer(request), Right.LISTEN)
        rooms = [room for room in self._lobby.rooms.values() if grant.covers(room.name)]
        live = [summary(room) for room in rooms]
        try:
            ended = [_ended(room) for room in await self._ended_rooms(grant)]
        except StoreError:
            ended = []  # the store says so in its own place; who is here now is still known
        return web.json_response({"rooms": live + ended})

    async def _ended_rooms(self, grant: Grant) -> list[EndedRoom]:
        """The last ones, or the one that the token is for. Raises `StoreError`."""
        if grant.room == EVERY_ROOM:
            return await self._house.store.ended_rooms()
        ended = await self._house.store.ended_room(grant.room)
        return [] if ended is None else [ended]

    async def room(self, request: web.Request) -> web.Response:
        name, grant = await self._admit(request)
        room = self._lobby.rooms.get(name)
        if room is not None:
            room.rules.check(grant)
            return web.json_response(summary(room))
        ended = await self._house.store.ended_room(name)
        if ended is None:
            raise _no_room()
        return web.json_response(_ended(ended))

    async def socket(self, request: web.Request) -> web.StreamResponse:
        return await ws.serve_socket(request, self._lobby)

    async def captions(self, request: web.Request) -> web.StreamResponse:
        name, grant = await self._admit(request)
        room = self._lobby.rooms.get(name)
        if room is None or room.is_ended:
            raise _no_room()
        room.rules.check_in(grant)
        limits, address = self._house.limits, request.remote or ""
        limits.take_read(address, time.monotonic())
        limits.check_listeners(room.sse_listeners)
        limits.take_seat(address)
        try:
            return await sse.serve_captions(request, room, grant.token_id)
        finally:
            limits.give_seat(address)

    async def transcript(self, request: web.Request) -> web.Response:
        name, grant = await self._admit(request)
        if (room := self._lobby.rooms.get(name)) is not None:
            room.rules.check(grant)
        self._house.limits.take_read(request.remote or "", time.monotonic())
        kind = request.match_info["kind"]
        said = await self._house.store.transcript(name)
        if said is None:
            raise _no_room()
        headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
        if kind == "json":
            text = await asyncio.to_thread(lambda: json.dumps(exports.to_json(said)))
            return web.json_response(text=text, headers=headers)
        render, content_type = {
            "srt": (exports.to_srt, "application/x-subrip"),
            "vtt": (exports.to_vtt, "text/vtt"),
            "txt": (exports.to_text, "text/plain"),
        }[kind]
        # off the loop: a day's transcript takes some tenths of a second
        text = await asyncio.to_thread(render, said)
        return web.Response(text=text, content_type=content_type, charset="utf-8", headers=headers)

    async def _admit(self, request: web.Request) -> tuple[str, Grant]:
        """Whether the room may be read with the request's token. Raises `Refused`."""
        name = check_room(request.match_info["room"])
        return name, await self._house.doors.check(bearer(request), Right.LISTEN, name)

    async def whip_offer(self, request: web.Request) -> web.Response:
        return await whip.offer(request, self._lobby)

    async def whip_trickle(self, request: web.Request) -> web.Response:
        return await whip.trickle(request, self._lobby)

    async def whip_end(self, request: web.Request) -> web.Response:
        return await whip.end(request, self._lobby)


def _is_fault_of_ours(record: logging.LogRecord) -> bool:
    """aiohttp tells of a request that it cannot read as of a failure, with its traceback: anyone
    could fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        headers = {}
        if error.status in (429, 503):
            headers["Retry-After"] = str(error.retry_after_s or 5)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return _error(error.status, error.code, error.message, error.retryable, headers)
    except StoreError as error:
        return _error(503, "store_unavailable", f"the store: {error.code}", True)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status, "bad_request")
        allow = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return _error(error.status, code, error.reason, False, allow)
    except Exception as error:
        # The containment of one request.
        if isinstance(error, ConnectionResetError) and request.transport is None:
            # The client went in the middle of it; nobody reads this.
            return _error(400, "bad_request", "the request did not come to its end", True)
        log.exception("a request failed")
        return _error(500, "internal", "something went wrong here", True)


def _error(
    status: int, code: str, message: str, retryable: bool, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    return web.json_response(body, status=status, headers=headers)


def _no_room() -> Refused:
    return Refused("no_such_room", "there is no such room", status=404)


def _ended(room: EndedRoom) -> dict[str, object]:
    return {
        "room": room.name,
        "started_at": wire.iso(room.started_at),
        "ended_at": wire.iso(room.ended_at),
        "participants": [{"name": name} for name in room.participants],
        "segments": room.segments,
        "lost_s": round(room.lost_s, 2),
    }


def _file(path: str, status: int = 200) -> web.StreamResponse:
    try:
        file = (STATIC / path).resolve()
        found = file.is_relative_to(STATIC) and file.suffix in _PAGES and file.is_file()
    except (OSError, ValueError):  # a name too long, a NUL
        found = False
    if not found:
        raise web.HTTPNotFound
    return web.FileResponse(
        file,
        status=status,
        headers={"Cache-Control": "no-cache"},
    )

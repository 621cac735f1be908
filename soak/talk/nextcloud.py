"""Nextcloud's side of Talk, played in this process's own loop.

It answers what the signaling server and a bot ask of the PHP backend, holds who has a session and
who is in a call, and tells the signaling server of changes as Talk does. It checks the checksums
that it is given and signs what it sends. The last requests are kept in `requests`.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Message = dict[str, Any]

BACKEND_PATH = "/ocs/v2.php/apps/spreed/api/v3/signaling/backend"
SETTINGS_PATH = "/ocs/v2.php/apps/spreed/api/v3/signaling/settings"
STATUS_PATH = "/ocs/v1.php/apps/app_api/ex-app/status"  # of an app that AppAPI installed
CAPABILITIES_PATH = "/ocs/v2.php/cloud/capabilities"

# Talk's flags of a participant in a call
OUT_OF_CALL, IN_CALL, WITH_AUDIO, WITH_VIDEO = 0, 1, 2, 4

_FEATURES = ["audio", "video", "signaling-v3", "conversation-v4", "live-transcription"]
_PERMISSIONS = ["publish-audio", "publish-video", "publish-screen", "control"]
_ALL_PERMISSIONS = 254
_OWNER, _GUEST = 1, 4  # participant types of Talk
_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Request:
    """What someone asked of Nextcloud."""

    method: str
    path: str
    headers: dict[str, str]
    body: Message


@dataclass(slots=True)
class TalkSession:
    """A participant's place in a room, as Nextcloud knows it."""

    room: str
    user: str  # empty for a guest
    name: str
    nc_session: str = field(default_factory=lambda: secrets.token_hex(64))
    ticket: str = field(default_factory=lambda: secrets.token_hex(16))
    in_call: int = OUT_OF_CALL


class Nextcloud:
    def __init__(self) -> None:
        self.url = ""
        self.secret = secrets.token_hex(16)
        self.signaling_url = ""  # of its HTTP side; there once the signaling server has a port
        self.requests: deque[Request] = deque(maxlen=_KEPT)
        self.unauthenticated = 0
        self.stun_servers: list[Message] = []
        self.turn_servers: list[Message] = []
        self.sessions: dict[str, TalkSession] = {}
        self._key = Ed25519PrivateKey.generate()
        self._http: aiohttp.ClientSession | None = None

    # what people do

    def new_session(self, room: str, name: str, *, is_guest: bool = False) -> TalkSession:
        """Someone opens the room in a browser."""
        user = "" if is_guest else name.lower()
        session = TalkSession(room, user, name)
        self.sessions[session.nc_session] = session
        return session

    def end_session(self, session: TalkSession) -> None:
        """They close the room; it may have been taken from them."""
        self.sessions.pop(session.nc_session, None)

    def token(self, session: TalkSession) -> str:
        """The JWT that a hello of version 2.0 carries."""
        now = int(time.time())
        header = _base64url({"typ": "JWT", "alg": "EdDSA"})
        claims = _base64url(
            {
                "iss": self.url,
                "iat": now,
                "exp": now + 60,
                "sub": session.user,
                "userdata": {"displayname": session.name},
            }
        )
        signature = self._key.sign(f"{header}.{claims}".encode())
        return f"{header}.{claims}.{_unpadded(signature)}"

    async def set_in_call(self, session: TalkSession, flags: int = IN_CALL | WITH_AUDIO) -> None:
        """Someone joins the call, leaves it, or changes what they send."""
        session.in_call = flags
        users = [_user(s) for s in self._in_room(session.room) if s.in_call]
        incall = {"incall": flags, "changed": [_user(session)], "users": users}
        await self._tell(session.room, {"type": "incall", "incall": incall})

    async def end_call_for_all(self, room: str) -> None:
        for session in self._in_room(room):
            session.in_call = OUT_OF_CALL
        await self._tell(room, {"type": "incall", "incall": {"incall": 0, "all": True}})

    async def kick(self, session: TalkSession) -> None:
        """A moderator removes someone from the room."""
        del self.sessions[session.nc_session]
        await self.disinvite(session.room, session.nc_session)

    async def disinvite(self, room: str, nc_session: str) -> None:
        """As `kick`, also of one who has no session here: a bot."""
        disinvite = {"sessionids": [nc_session], "alluserids": [], "properties": {}}
        await self._tell(room, {"type": "disinvite", "disinvite": disinvite})

    async def delete_room(self, room: str) -> None:
        users = [session.user for session in self._in_room(room)]
        for session in self._in_room(room):
            del self.sessions[session.nc_session]
        await self._tell(room, {"type": "delete", "delete": {"userids": users}})

    async def send_to_room(self, room: str, message: Message) -> None:
        await self._tell(room, {"type": "message", "message": {"data": message}})

    # what it answers

    async def _capabilities(self, request: web.Request) -> web.Response:
        key = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signaling = {"hello-v2-token-key": key.decode(), "session-ping-limit": 200}
        spreed = {"version": "23.0.0", "features": _FEATURES, "config": {"signaling": signaling}}
        return _answer({"version": {"major": 33}, "capabilities": {"spreed": spreed}})

    async def _settings(self, request: web.Request) -> web.Response:
        return _answer(
            {
                "signalingMode": "external",
                "server": self.signaling_url,
                "hideWarning": True,
                "stunservers": self.stun_servers,
                "turnservers": self.turn_servers,
            }
        )

    async def _app_status(self, request: web.Request) -> web.Response:
        """How far an app is with its preparations; `requests` has it."""
        return _answer({})

    async def _backend(self, request: web.Request) -> web.Response:
        body = await request.read()
        nonce = request.headers.get("Spreed-Signaling-Random", "")
        checksum = request.headers.get("Spreed-Signaling-Checksum", "")
        if len(nonce) < 32 or not hmac.compare_digest(checksum, self._checksum(nonce, body)):
            self.unauthenticated += 1
            return _refuse("invalid_request", "The request could not be authenticated.")
        message: Message = json.loads(body)
        match message["type"]:
            case "auth":
                return self._auth(message["auth"]["params"])
            case "room":
                return self._room(message["room"])
            case "ping":
                return _answer({"type": "room", "room": {"version": "1.0"}})
            case "session":
                room = message["session"]["roomid"]
                return _answer({"type": "session", "session": {"version": "1.0", "roomid": room}})
        return _refuse("unknown_type", "The given type is not supported.")

    def _auth(self, params: Message) -> web.Response:
        """A hello of version 1.0."""
        for session in self.sessions.values():
            if (session.ticket, session.user) == (params.get("ticket"), params.get("userid")):
                auth: Message = {"version": "1.0"}
                if session.user:
                    auth |= {"userid": session.user, "user": {"displayname": session.name}}
                return _answer({"type": "auth", "auth": auth})
        return _refuse("invalid_ticket", "The given ticket is not valid for this user.")

    def _room(self, asked: Message) -> web.Response:
        session = self.sessions.get(asked["sessionid"])
        if session is None or session.room != asked["roomid"]:
            return _refuse("no_such_room", "The user is not invited to this room.")
        if asked.get("action") == "leave":
            session.in_call = OUT_OF_CALL
        room = {
            "version": "1.0",
            "roomid": session.room,
            "properties": {"name": "Meeting", "type": 3, "lobby-state": 0, "read-only": 0},
            "permissions": _PERMISSIONS,
        }
        return _answer({"type": "room", "room": room})

    # the wire

    @web.middleware
    async def _keep(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.text()
        parsed = json.loads(body) if body else {}
        kept = Request(request.method, request.path, dict(request.headers), parsed)
        self.requests.append(kept)
        response: web.StreamResponse = await handler(request)
        return response

    async def _tell(self, room: str, message: Message) -> None:
        """Raises `aiohttp.ClientError` where the signaling server is not there or refuses."""
        assert self._http is not None
        body = json.dumps(message).encode()
        nonce = secrets.token_hex(32)
        headers = {
            "Content-Type": "application/json",
            "Spreed-Signaling-Random": nonce,
            "Spreed-Signaling-Checksum": self._checksum(nonce, body),
            "Spreed-Signaling-Backend": self.url,
        }
        url = f"{self.signaling_url}/api/v1/room/{room}"
        async with self._http.post(url, data=body, headers=headers) as response:
            response.raise_for_status()

    def _checksum(self, nonce: str, body: bytes) -> str:
        return hmac.new(self.secret.encode(), nonce.encode() + body, hashlib.sha256).hexdigest()

    def _in_room(self, room: str) -> list[TalkSession]:
        return [session for session in self.sessions.values() if session.room == room]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(middlewares=[self._keep])
        app.router.add_get(CAPABILITIES_PATH, self._capabilities)
        app.router.add_get(SETTINGS_PATH, self._settings)
        app.router.add_post(BACKEND_PATH, self._backend)
        app.router.add_put(STATUS_PATH, self._app_status)
        # as Apache closes connections that wait
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=5.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            async with aiohttp.ClientSession() as self._http:
                yield
        finally:
            await runner.cleanup()


def _user(session: TalkSession) -> Message:
    user = {
        "inCall": session.in_call,
        "lastPing": int(time.time()),
        # the signaling server puts its own id here
        "sessionId": session.nc_session,
        "nextcloudSessionId": session.nc_session,
        "participantType": _OWNER if session.user else _GUEST,
        "participantPermissions": _ALL_PERMISSIONS,
        "actorType": "users" if session.user else "guests",
        "actorId": session.user or session.nc_session[:16],
    }
    return user | ({"userId": session.user} if session.user else {})


def _answer(content: Message) -> web.Response:
    meta = {"status": "ok", "statuscode": 200, "message": "OK"}
    return web.json_response({"ocs": {"meta": meta, "data": content}})


def _refuse(code: str, message: str) -> web.Response:
    return _answer({"type": "error", "error": {"code": code, "message": message}})


def _base64url(content: Message) -> str:
    return _unpadded(json.dumps(content).encode())


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

"""A client that tries each door with a token that is not for it."""

import base64
import json
import time
from collections.abc import Iterator

import aiohttp
import jwt
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from server.app import Running
from server.config import Settings
from server.settings import AuthSettings
from server.tokens import issue
from signaling.grant import Grant, Right
from tests.clients import Voice, connected, until
from tests.speech import tone
from tests.talk.doors import DOORS

RATE = 48_000
SECRET = "a secret of thirty-two characters"
ROOM = "/api/v1/rooms/standup"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": AuthSettings(secret=SECRET)})


def token(*may: Right, room: str = "standup", ends_in_s: float = 3600) -> str:
    return issue(SECRET, Grant(room, frozenset(may)), time.time() + ends_in_s)


def unsigned() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"room": "*", "may": ["admin"], "exp": int(time.time() + 3600)}
    return f"{part({'alg': 'none'})}.{part(claims)}."


def forged() -> str:
    claims = {"room": "*", "may": ["admin"], "exp": int(time.time() + 3600)}
    return jwt.encode(claims, "another secret of 32 characters!", "HS256")


# what a client has, and how it is refused
BAD = {
    "none": (None, 401, "unauthorized"),
    "no token at all": ("standup", 401, "bad_token"),
    "expired": (token(Right.ADMIN, ends_in_s=-60), 401, "token_expired"),
    "another room's": (token(Right.ADMIN, room="other"), 403, "wrong_room"),
    "alg: none": (unsigned(), 401, "bad_token"),
    "a wrong key": (forged(), 401, "bad_token"),
}

OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


def doors() -> Iterator[tuple[str, str, str | None]]:
    """Method, path and body of each over HTTP."""
    yield "GET", ROOM, None
    yield "GET", f"{ROOM}/captions", None
    for kind in ("json", "srt", "vtt", "txt"):
        yield "GET", f"{ROOM}/transcript.{kind}", None
    yield "POST", "/whip/standup", OFFER
    yield "POST", f"{ROOM}/lock", None
    yield "DELETE", ROOM, None
    yield "POST", f"{ROOM}/participants/p1/mute", None
    yield "DELETE", f"{ROOM}/participants/p1", None


@pytest.mark.parametrize("what", BAD)
async def test_no_door_opens_to_a_bad_token(server: Running, what: str) -> None:
    given, status, code = BAD[what]
    headers = {} if given is None else {"Authorization": f"Bearer {given}"}
    async with connected(server.url, "standup") as ada, aiohttp.ClientSession() as http:
        await ada.hello("Ada", token=token(Right.PUBLISH, Right.LISTEN))
        for method, path, body in doors():
            more = {"Content-Type": "application/sdp"} if body else {}
            async with http.request(
                method, server.url + path, data=body, headers={**headers, **more}
            ) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (status, code), path
                assert given is None or given not in await answer.text()
        async with connected(server.url, "standup") as eve:
            await eve.send(type="hello", version=1, name="Eve", token=given)
            told = await eve.wait_for(lambda m: bool(m["type"] == "error"))
            assert (told["code"], told["retryable"]) == (code, False)
            await until(eve.is_closed.is_set)
            assert eve.socket.close_code == 1008
        # the list of rooms has only what a token is for, and without one nothing
        async with http.get(f"{server.url}/api/v1/rooms", headers=headers) as answer:
            if what == "another room's":
                assert await answer.json() == {"rooms": []}
            else:
                assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)
        assert list(server.lobby.rooms["standup"].participants) == [ada.participant]
        assert list(server.lobby.rooms) == ["standup"]


async def test_doors_of_talk_are_shut_without_nextclouds_secret(server: Running) -> None:
    """Also to whoever has a token: it is for rooms."""
    given = {"Authorization": f"Bearer {token(Right.ADMIN, room='*')}"}
    body = {"roomToken": "abc", "ncSessionId": "s", "langId": "en"}
    async with aiohttp.ClientSession(headers=given) as http:
        for method, path in DOORS:
            async with http.request(method, server.url + path, json=body) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (
                    401,
                    "unauthorized",
                ), path


async def test_who_may_only_listen_cannot_publish_by_any_way(server: Running) -> None:
    given = token(Right.LISTEN)
    async with connected(server.url, "standup") as ada, aiohttp.ClientSession() as http:
        await ada.hello("Ada", token=given)
        await ada.send(type="offer", sdp=OFFER)
        told = await ada.wait_for(lambda m: bool(m["type"] == "error"))
        assert told["code"] == "not_allowed"
        headers = {"Authorization": f"Bearer {given}", "Content-Type": "application/sdp"}
        async with http.post(f"{server.url}/whip/standup", data=OFFER, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "not_allowed")
        assert server.lobby.rooms["standup"].peers == []


async def test_who_may_only_publish_hears_nothing_by_any_way(server: Running) -> None:
    """A device that speaks has a data channel, too."""
    async with (
        connected(server.url, "standup") as desk,
        connected(server.url, "standup") as ada,
        aiohttp.ClientSession() as http,
    ):
        await desk.send(type="hello", version=1, name="Desk", token=token(Right.PUBLISH))
        assert (await desk.wait_for(lambda m: bool(m["type"] == "error")))["code"] == "not_allowed"
        await ada.hello("Ada", token=token(Right.LISTEN))

        desk.connection = connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.addTrack(Voice(tone(3.0, RATE)))
        desk.channel = channel = connection.createDataChannel("captions")
        heard: list[object] = []
        channel.on("message", heard.append)
        await connection.setLocalDescription(await connection.createOffer())
        async with http.post(
            f"{server.url}/whip/standup",
            params={"name": "Desk"},
            data=connection.localDescription.sdp,
            headers={
                "Authorization": f"Bearer {token(Right.PUBLISH)}",
                "Content-Type": "application/sdp",
            },
        ) as answer:
            assert answer.status == 201
            told = RTCSessionDescription(await answer.text(), "answer")
            await connection.setRemoteDescription(told)
        assert (await ada.wait_for_final())["name"] == "Desk"
        assert channel.readyState == "open"
        assert heard == []

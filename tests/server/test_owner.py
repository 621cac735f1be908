"""What the owner of a room may do, and who is none."""

import logging
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from server.config import Settings
from server.lobby import Lobby
from server.settings import AuthSettings
from server.tokens import issue
from signaling.errors import Refused
from signaling.grant import Grant, Right
from tests.server.rooms import caption, end_room, join, received, room_of, types

Http = TestClient[web.Request, web.Application]

SECRET = "a secret of thirty-two characters"
ROOM = "/api/v1/rooms/standup"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": AuthSettings(secret=SECRET)})


def token(*may: Right, room: str = "standup", name: str | None = None, ident: str = "t") -> str:
    return issue(SECRET, Grant(room, frozenset(may), name, ident), time.time() + 3600)


SPEAKER = token(Right.PUBLISH, Right.LISTEN, ident="speaker")
OWNER = token(Right.ADMIN, ident="owner")


def bearing(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}


async def refused(lobby: Lobby, **fields: Any) -> str:
    with pytest.raises(Refused) as error:
        await join(lobby, "Eve", **fields)
    return error.value.code


ACTS = [
    ("POST", f"{ROOM}/lock"),
    ("DELETE", ROOM),
    ("POST", f"{ROOM}/participants/p1/mute"),
    ("DELETE", f"{ROOM}/participants/p1"),
]


@pytest.mark.parametrize(("method", "path"), ACTS)
async def test_nobody_but_the_owner_acts(http: Http, lobby: Lobby, method: str, path: str) -> None:
    await join(lobby, token=SPEAKER)
    for given, status, code in (
        ({}, 401, "unauthorized"),
        (bearing("x.y.z"), 401, "bad_token"),
        (bearing(SPEAKER), 403, "not_allowed"),
        (bearing(token(Right.ADMIN, room="other")), 403, "wrong_room"),
    ):
        answer = await http.request(method, path, headers=given)
        assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)
    assert list(room_of(lobby).participants) == ["p1"]


@pytest.mark.parametrize(("method", "path"), ACTS)
async def test_what_is_not_there_is_said(http: Http, lobby: Lobby, method: str, path: str) -> None:
    answer = await http.request(method, path, headers=bearing(OWNER))
    assert (await answer.json())["error"]["code"] == "no_such_room"
    await join(lobby, token=SPEAKER)
    if "participants" in path:
        answer = await http.request(method, path.replace("p1", "p7"), headers=bearing(OWNER))
        assert (answer.status, (await answer.json())["error"]["code"]) == (
            404,
            "no_such_participant",
        )


async def test_a_locked_room_lets_in_its_owner_alone(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby, token=SPEAKER)
    answer = await http.post(f"{ROOM}/lock", headers=bearing(OWNER))
    assert await answer.json() == {"room": "standup", "locked": True}
    assert await refused(lobby, token=SPEAKER) == "locked"
    captions = await http.get(f"{ROOM}/captions", headers=bearing(SPEAKER))
    assert (await captions.json())["error"]["code"] == "locked"
    # who was in comes back, and the owner comes in
    assert await join(lobby, resume=ada.resume) is ada
    assert await join(lobby, "Olga", token=OWNER)
    await http.post(f"{ROOM}/lock", headers=bearing(OWNER), json={"locked": False})
    assert await join(lobby, "Ben", token=SPEAKER)


async def test_who_is_removed_is_told_and_stays_away(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby, token=token(Right.LISTEN, ident="adas"))
    ben = await join(lobby, "Ben", token=token(Right.LISTEN, ident="bens"))
    await received(ada)
    answer = await http.delete(f"{ROOM}/participants/p1", headers=bearing(OWNER))
    assert answer.status == 200
    said = await received(ada)
    assert (types(said)[-1], said[-1]["reason"]) == ("bye", "removed")
    assert (await received(ben))[-1] == {"type": "left", "participant": "p1", "reason": "removed"}
    assert await refused(lobby, token=token(Right.LISTEN, ident="adas")) == "removed"
    assert await refused(lobby, resume=ada.resume) == "unauthorized"
    assert await join(lobby, "Ada again", token=token(Right.LISTEN, ident="another"))


async def test_the_muted_stay_muted_until_they_may(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby, token=SPEAKER)
    ben = await join(lobby, "Ben", token=token(Right.LISTEN, ident="bens"))
    await received(ben)
    answer = await http.post(f"{ROOM}/participants/p1/mute", headers=bearing(OWNER))
    entry = {"participant": "p1", "name": "Ada", "muted": True, "speaking": False}
    assert await answer.json() == {**entry, "muted_by_owner": True}
    (told,) = await received(ben)
    assert told == {"type": "updated", **entry, "muted_by_owner": True}
    with pytest.raises(Refused, match="muted you"):
        ada.set_muted(False)
    ada.set_muted(True)
    assert ada.muted
    answer = await http.post(
        f"{ROOM}/participants/p1/mute", headers=bearing(OWNER), json={"muted": False}
    )
    assert await answer.json() == entry  # and unmutes when they want
    assert await received(ben) == [{"type": "updated", **entry}]
    ada.set_muted(False)
    assert not ada.muted


async def test_who_is_muted_already_is_held(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby, token=SPEAKER)
    ada.set_muted(True)
    await http.post(f"{ROOM}/participants/p1/mute", headers=bearing(OWNER))
    with pytest.raises(Refused, match="muted you"):
        ada.set_muted(False)


async def test_an_ended_room_sends_everyone_away(http: Http, lobby: Lobby) -> None:
    ada, room = await join(lobby, token=SPEAKER), room_of(lobby)
    answer = await http.delete(ROOM, headers=bearing(OWNER))
    assert await answer.json() == {"room": "standup", "status": "ended"}
    assert room.is_ended
    outbox = ada.outbox
    assert outbox is not None
    *_, last = [text async for text in outbox]
    assert '"bye"' in last
    again = await join(lobby, token=SPEAKER)
    assert again.room is not room


async def test_a_call_of_talk_is_managed_there(http: Http, lobby: Lobby) -> None:
    given = bearing(token(Right.ADMIN, room="*"))
    await join(lobby, room="talk-abc", token=token(Right.LISTEN, room="*"))
    for path in ("/api/v1/rooms/talk-abc", "/api/v1/rooms/talk-abc/participants/p1"):
        answer = await http.delete(path, headers=given)
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "read_only")


@pytest.mark.parametrize("body", [b"[]", b"no", b'{"locked":"yes"}'])
async def test_what_is_asked_has_to_be_said_clearly(http: Http, lobby: Lobby, body: bytes) -> None:
    await join(lobby, token=SPEAKER)
    answer = await http.post(f"{ROOM}/lock", headers=bearing(OWNER), data=body)
    assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad_request")
    assert not room_of(lobby).rules.is_locked


async def test_each_act_leaves_a_line_without_a_name(
    http: Http, lobby: Lobby, caplog: pytest.LogCaptureFixture
) -> None:
    await join(lobby, "Ada", token=SPEAKER)
    with caplog.at_level(logging.INFO, "roomscribe.audit"):
        await http.post(f"{ROOM}/lock", headers=bearing(OWNER))
        await http.post(f"{ROOM}/participants/p1/mute", headers=bearing(OWNER))
        await http.delete(f"{ROOM}/participants/p1", headers=bearing(OWNER))
        await http.delete(ROOM, headers=bearing(OWNER))
    lines = [vars(record) for record in caplog.records if record.name == "roomscribe.audit"]
    assert [line["action"] for line in lines] == ["lock", "mute", "remove", "end"]
    assert {line["token"] for line in lines} == {"owner"}
    assert {line["room"] for line in lines} == {"standup"}
    assert [line.get("participant") for line in lines] == [None, "p1", "p1", None]
    assert not any("Ada" in str(line) or SECRET in str(line) for line in lines)


async def test_all_that_came_by_a_token_goes_with_who_is_removed(http: Http, lobby: Lobby) -> None:
    given = token(Right.LISTEN, ident="shared")
    ada, ben = await join(lobby, token=given), await join(lobby, "Ben", token=given)
    reading = await http.get(f"{ROOM}/captions", headers=bearing(given))
    await http.delete(f"{ROOM}/participants/{ada.participant}", headers=bearing(OWNER))
    assert (ada.has_left, ben.has_left) == (True, True)
    assert b'{"reason":"removed"}' in await reading.read()
    for path in (ROOM, f"{ROOM}/transcript.txt", f"{ROOM}/captions"):
        answer = await http.get(path, headers=bearing(given))
        assert (await answer.json())["error"]["code"] == "removed", path
    assert (await http.get(ROOM, headers=bearing(SPEAKER))).status == 200


async def test_an_owner_who_removes_a_seat_of_their_own_may_come_back(
    http: Http, lobby: Lobby
) -> None:
    first = await join(lobby, token=OWNER)
    await http.delete(f"{ROOM}/participants/{first.participant}", headers=bearing(OWNER))
    assert (await http.get(ROOM, headers=bearing(OWNER))).status == 200
    assert await join(lobby, token=OWNER)


async def test_who_is_to_be_silent_is_so_again_when_coming_anew(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby, token=SPEAKER)
    await http.post(f"{ROOM}/participants/p1/mute", headers=bearing(OWNER))
    ada.leave("left")
    again = await join(lobby, "Ada again", token=SPEAKER)
    assert (again.muted, again.muted_by_owner) == (True, True)
    with pytest.raises(Refused, match="muted you"):
        again.set_muted(False)
    await http.post(
        f"{ROOM}/participants/{again.participant}/mute",
        headers=bearing(OWNER),
        json={"muted": False},
    )
    again.set_muted(False)
    again.leave("left")
    assert not (await join(lobby, "Ada once more", token=SPEAKER)).muted


# What a token lets one do


async def test_the_name_of_a_token_is_the_one_that_counts(lobby: Lobby) -> None:
    given = token(Right.LISTEN, name="Desk 4")
    ada = await join(lobby, "Somebody else", token=given)
    assert ada.name == "Desk 4"
    assert (await join(lobby, "Another", resume=ada.resume)).name == "Desk 4"


async def test_the_welcome_says_what_one_may(lobby: Lobby) -> None:
    for given, rights in (
        (SPEAKER, ["publish", "listen"]),
        (OWNER, ["publish", "listen", "admin"]),
        (token(Right.LISTEN), ["listen"]),
    ):
        (welcome, *_) = await received(await join(lobby, token=given))
        assert welcome["rights"] == rights


async def test_who_may_only_read_cannot_speak(lobby: Lobby) -> None:
    ada = await join(lobby, token=token(Right.LISTEN))
    with pytest.raises(Refused, match="does not let you speak"):
        await ada.answer("v=0\r\nm=audio 9\r\n")


async def test_who_may_only_speak_reads_nothing(lobby: Lobby, http: Http) -> None:
    given = token(Right.PUBLISH)
    for path in (ROOM, f"{ROOM}/captions", f"{ROOM}/transcript.txt", "/api/v1/rooms"):
        answer = await http.get(path, headers=bearing(given))
        assert (answer.status, (await answer.json())["error"]["code"]) == (403, "not_allowed")
    assert await refused(lobby, token=given) == "not_allowed"
    desk = await join(lobby, token=given, needs=Right.PUBLISH)
    ada = await join(lobby, token=SPEAKER)
    await received(desk)
    room_of(lobby).publish(ada, caption(ada))
    assert await received(desk) == []
    assert "caption" in types(await received(ada))


async def test_the_list_has_the_rooms_of_the_token(http: Http, lobby: Lobby) -> None:
    await join(lobby, token=SPEAKER)
    await join(lobby, room="other", token=token(Right.LISTEN, room="other"))

    async def rooms(given: str) -> list[str]:
        answer = await http.get("/api/v1/rooms", headers=bearing(given))
        return sorted(room["room"] for room in (await answer.json())["rooms"])

    assert await rooms(SPEAKER) == ["standup"]
    assert await rooms(token(Right.LISTEN, room="*")) == ["other", "standup"]
    assert (await http.get("/api/v1/rooms")).status == 401
    answer = await http.get("/api/v1/rooms/other", headers=bearing(SPEAKER))
    assert answer.status == 403


async def test_the_list_has_the_ended_room_of_the_token(http: Http, lobby: Lobby) -> None:
    for name in ("standup", "other"):
        await join(lobby, room=name, token=token(Right.LISTEN, room=name))
        await end_room(lobby, name)
    answer = await http.get("/api/v1/rooms", headers=bearing(SPEAKER))
    (room,) = (await answer.json())["rooms"]
    assert room["room"] == "standup"
    assert room["ended_at"]


async def test_a_refusal_says_how_to_be_let_in(http: Http) -> None:
    answer = await http.get("/api/v1/rooms")
    assert answer.headers["WWW-Authenticate"] == "Bearer"

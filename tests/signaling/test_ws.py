"""The WebSocket shell, as a client sees it."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import WSMsgType

from server.app import Running
from signaling import session
from signaling.messages import MAX_MESSAGE_BYTES
from soak.talk.heard import Message
from tests.clients import Client, connected, joined

HELLO = {"type": "hello", "version": 1, "name": "Ada"}


async def error(client: Client, code: str, *, since: int = 0) -> Message:
    return await client.wait_for(
        lambda m: bool(m["type"] == "error" and m["code"] == code), since=since, within_s=20
    )


async def closed(client: Client) -> int | None:
    """The code with which the server closes the socket."""
    async with asyncio.timeout(10):
        await client.is_closed.wait()
    return client.socket.close_code


def participants(server: Running, room: str = "standup") -> list[str]:
    found = server.lobby.rooms.get(room)
    return [] if found is None else list(found.participants)


async def test_hello_is_welcomed(server: Running) -> None:
    async with connected(server.url, "standup") as ada:
        welcome = await ada.hello("  Ada ")
        assert welcome["room"] == "standup"
        assert [person["name"] for person in welcome["participants"]] == ["Ada"]
        assert welcome["participants"][0]["participant"] == welcome["participant"]
        assert welcome["engine"]["state"] == "ready"
        assert welcome["engine"]["languages"] == ["en", "de", "fr", "es"]


async def test_a_room_that_is_not_allowed_is_refused_before_the_upgrade(server: Running) -> None:
    async with aiohttp.ClientSession() as browser:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await browser.ws_connect(f"{server.url}/api/v1/rooms/a%20b/ws")
    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\u2028b"])
async def test_a_name_that_is_not_allowed_is_told_and_closes(server: Running, name: str) -> None:
    async with connected(server.url, "standup") as client:
        await client.send(**{**HELLO, "name": name})
        assert (await error(client, "bad_name"))["retryable"] is False
        assert await closed(client) == 1008
        assert participants(server) == []


async def test_an_unknown_language_in_hello_is_told_and_closes(server: Running) -> None:
    async with connected(server.url, "standup") as client:
        await client.send(**HELLO, language="tlh")
        await error(client, "bad_language")
        assert await closed(client) == 1008
        assert participants(server) == []


async def test_an_unknown_language_later_is_told_and_all_goes_on(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.send(type="language", language="tlh")
        await error(ada, "bad_language")
        await ada.send(type="language", language="de-AT")
        await ada.send(type="mute", muted=True)
        await ada.wait_for(lambda m: bool(m["type"] == "updated" and m["muted"]))
        assert server.lobby.rooms["standup"].participants["p1"].language == "de"


async def test_without_hello_the_socket_is_closed_within_5_s(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.HELLO_WITHIN_S == 5.0
    monkeypatch.setattr(session, "HELLO_WITHIN_S", 0.2)
    async with connected(server.url, "standup") as client:
        told = await error(client, "no_hello")
        assert told["retryable"] is True
        assert await closed(client) == 1008
    assert server.lobby.rooms == {}


@pytest.mark.parametrize(
    "bad",
    ["not JSON", "{}", "[]", '{"type":"dance"}', '{"type":"offer"}', json.dumps(HELLO)],
)
async def test_a_bad_message_is_told_and_the_session_goes_on(server: Running, bad: str) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.socket.send_str(bad)
        assert (await error(ada, "bad_message"))["retryable"] is True
        await ada.send(type="mute", muted=True)
        await ada.wait_for(lambda m: bool(m["type"] == "updated"), within_s=20)


async def test_the_tenth_bad_message_closes_with_1008_and_the_seat_is_free(
    server: Running,
) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Mallory") as mallory,
    ):
        for _ in range(9):
            await mallory.socket.send_str("not JSON")
        await mallory.send(type="mute", muted=True)
        await mallory.wait_for(lambda m: bool(m["type"] == "updated"))
        assert not mallory.is_closed.is_set()
        await mallory.socket.send_bytes(b"\x00")
        assert await closed(mallory) == 1008
        told = [m for m in mallory.seen if m["type"] == "error"]
        assert len(told) >= 9
        left = await ada.wait_for(lambda m: bool(m["type"] == "left"))
        assert (left["participant"], left["reason"]) == ("p2", "bad_messages")


def offer_of_bytes(count: int) -> str:
    frame = '{"type":"offer","sdp":""}'
    return f'{{"type":"offer","sdp":"{"x" * (count - len(frame))}"}}'


async def test_a_message_of_64_kib_is_read(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.socket.send_str(offer_of_bytes(MAX_MESSAGE_BYTES))
        await error(ada, "bad_sdp")


async def test_a_message_over_64_kib_ends_the_socket_and_nobody_else_notices(
    server: Running,
) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ben.socket.send_str(offer_of_bytes(1024 * 1024))
        assert await closed(ben) == 1009
        await ada.send(type="mute", muted=True)
        await ada.wait_for(lambda m: bool(m["type"] == "updated"))
        # a page that sent it by mistake can come back
        assert participants(server) == ["p1", "p2"]
        async with connected(server.url, "standup") as back:
            welcome = await back.hello("Ben", resume=ben.resume)
            assert (welcome["participant"], welcome["resumed"]) == ("p2", True)


async def test_bye_leaves_at_once(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ben.send(type="bye")
        assert await closed(ben) == 1000
        left = await ada.wait_for(lambda m: bool(m["type"] == "left"))
        assert (left["participant"], left["reason"]) == ("p2", "left")


async def test_a_page_is_pinged(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PING_EVERY_S", 0.1)
    async with joined(server.url, "standup", "Ada") as ada:
        for _ in range(2):
            await ada.wait_for(lambda m: bool(m["type"] == "ping"), since=len(ada.seen))


async def test_who_comes_back_on_a_new_socket_is_the_same_participant(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ben.socket.close()
        async with connected(server.url, "standup") as back:
            welcome = await back.hello("Ben", resume=ben.resume)
            assert (welcome["participant"], welcome["resumed"]) == ("p2", True)
            assert participants(server) == ["p1", "p2"]
            assert not any(m["type"] == "left" for m in ada.seen)


async def test_a_second_socket_of_the_same_participant_ends_the_first(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as first,
        connected(server.url, "standup") as second,
    ):
        await second.hello("Ada", resume=first.resume)
        await first.wait_for(lambda m: m == {"type": "bye", "reason": "resumed"})
        assert await closed(first) == 1000
        await second.send(type="mute", muted=True)
        await second.wait_for(lambda m: bool(m["type"] == "updated"))
        assert participants(server) == ["p1"]


async def test_who_hello_does_not_reach_leaves_no_trace(server: Running) -> None:
    for _ in range(3):
        async with connected(server.url, "standup") as client:
            await client.socket.ping()
    assert server.lobby.rooms == {}


async def test_a_candidate_before_any_offer_waits_for_one(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.send(type="candidate", candidate="candidate:nonsense", sdpMid="0")
        await ada.send(type="mute", muted=True)
        await ada.wait_for(lambda m: bool(m["type"] == "updated"))
        assert not any(m["type"] == "error" for m in ada.seen)
        await ada.send(type="offer", sdp="not SDP")
        await error(ada, "bad_sdp")
        await error(ada, "no_offer")


async def test_a_page_that_neither_reads_nor_answers_pings_is_noticed(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.room.RESUME_WITHIN_S", 0.2)
    async with joined(server.url, "standup", "Ada") as ada:
        monkeypatch.setattr("signaling.ws._HEARTBEAT_S", 0.2)  # not for Ada, however slow she is
        async with connected(server.url, "standup") as ben:
            await ben.hello("Ben")
            ben.fall_silent()
            left = await ada.wait_for(lambda m: bool(m["type"] == "left"), within_s=20)
            assert (left["participant"], left["reason"]) == ("p2", "lost")


async def test_the_socket_speaks_text_only_to_its_client(server: Running) -> None:
    async with (
        aiohttp.ClientSession() as browser,
        browser.ws_connect(f"{server.url}/api/v1/rooms/standup/ws") as socket,
    ):
        await socket.send_json(HELLO)
        message = await socket.receive(timeout=20)
        assert message.type is WSMsgType.TEXT
        assert json.loads(message.data)["type"] == "welcome"


async def test_a_script_of_another_site_is_refused(server: Running) -> None:
    async with aiohttp.ClientSession(headers={"Origin": "http://evil.example"}) as browser:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await browser.ws_connect(f"{server.url}/api/v1/rooms/standup/ws")
    assert refusal.value.status == 403


async def test_a_page_of_our_own_is_let_in(server: Running) -> None:
    async with aiohttp.ClientSession(headers={"Origin": server.url}) as browser:
        socket = await browser.ws_connect(f"{server.url}/api/v1/rooms/standup/ws")
        await socket.close()


async def test_a_tab_whose_place_was_taken_cannot_act_any_more(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as old, connected(server.url, "standup") as new:
        await new.send(**HELLO, resume=old.resume)
        await old.send(type="bye")
        welcome = await new.wait_for(lambda m: bool(m["type"] == "welcome"))
        await old.is_closed.wait()
        await new.send(type="mute", muted=True)
        await new.wait_for(lambda m: bool(m["type"] == "updated" and m["muted"]))
        assert participants(server) == [welcome["participant"]]


async def test_a_client_that_floods_leaves_the_others_their_turn(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Flood") as flood,
        joined(server.url, "standup", "Ada") as ada,
    ):
        for number in range(3000):
            await flood.send(type="mute", muted=number % 2 == 0)
        await ada.send(type="mute", muted=True)
        await ada.wait_for(
            lambda m: bool(m["type"] == "updated" and m["participant"] == ada.participant)
        )
        # the flood itself is still waiting for its turns
        assert sum(m["type"] == "updated" for m in ada.seen) < 1000

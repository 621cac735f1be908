"""A flood of each kind, against its limit: it costs the one who makes it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcsctptransport import SCTP_DATA_UNORDERED, DataChunk, tsn_plus_one

from server.app import Running
from server.config import Settings
from server.settings import LimitSettings, RoomSettings
from tests.arena import arena_in
from tests.clients import Voice, connected, joined, until
from tests.speech import silence

RATE = 48_000
# Small, and still more than those need who speak and read meanwhile: a room has five of them.
LIMITS = {
    "joins_per_minute": 60,
    "reads_per_minute": 100,
    "offers_per_minute": 10,
    "participants_per_room": 35,
    "rooms": 30,
    "seats_per_address": 40,
    "peers_per_address": 30,
    "listeners_per_room": 15,
    "messages_per_s": 50.0,
    "sdp_bytes": 20_000,
    "sdp_lines": 300,
    "candidates": 30,
    "channel_bytes_per_s": 4_000,
    "idle_connection_s": 3.0,
    "body_s": 1.0,
}

Flood = Callable[[str], Awaitable[None]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"limits": LimitSettings(**LIMITS)})


@asynccontextmanager
async def flooding(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """From an address of its own."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield http


async def hello(http: aiohttp.ClientSession, url: str, room: str) -> str:
    """Come, and go again."""
    async with http.ws_connect(f"{url}/api/v1/rooms/{room}/ws") as socket:
        came = await said_to_hello(socket)
        await socket.send_json({"type": "bye"})
        return came


async def said_to_hello(socket: aiohttp.ClientWebSocketResponse) -> str:
    """A welcome, or the code of the error."""
    await socket.send_json({"type": "hello", "version": 1, "name": "Eve"})
    while (said := await socket.receive_json())["type"] not in ("welcome", "error"):
        pass
    return str(said.get("code", "welcome"))


async def joins(url: str) -> None:
    async with flooding("127.0.0.2") as http:
        came = [await hello(http, url, "of-joins") for _ in range(120)]
    assert came[0] == "welcome"
    assert "too_many_joins" in came


async def rooms(url: str) -> None:
    async with flooding("127.0.0.3") as http, flooding("127.0.0.10") as another:
        came = [
            await hello(one, url, f"of-rooms-{n}")
            for n in range(50)
            for one in [http if n % 2 else another]
        ]
    assert "too_many_rooms" in came


async def crowding(url: str, address: str, rooms: list[str]) -> list[str]:
    """What comes of a hello in each of the rooms, while those before stay in."""
    came = []
    async with flooding(address) as http, contextlib.AsyncExitStack() as inside:
        for room in rooms:
            socket = await inside.enter_async_context(
                http.ws_connect(f"{url}/api/v1/rooms/{room}/ws")
            )
            came.append(await said_to_hello(socket))
    return came


async def seats(url: str) -> None:
    """In whatever rooms."""
    came = await crowding(url, "127.0.0.8", [f"of-seats-{n % 4}" for n in range(60)])
    assert came[0] == "welcome"
    assert "too_many_seats" in came


async def reads(url: str) -> None:
    async with joined(url, "of-reads", "Ada"), flooding("127.0.0.9") as http:
        came = []
        for _ in range(150):
            async with http.get(f"{url}/api/v1/rooms/of-reads/transcript.txt") as answer:
                came.append(answer.status)
    assert came[0] == 200
    assert 429 in came


async def many_offers(url: str) -> None:
    """Each of another connection, for which a peer is made."""
    async with joined(url, "of-many-offers", "Eve") as eve:
        for _ in range(14):
            since = len(eve.seen)
            await eve.send(type="offer", sdp=await an_offer())
            said = await eve.wait_for(lambda m: m["type"] in ("answer", "error"), since=since)
        assert said["code"] == "too_many_offers"


async def participants(url: str) -> None:
    came = await crowding(url, "127.0.0.4", ["of-people"] * 38)
    assert came == ["welcome"] * 35 + ["room_full"] * 3


async def listeners(url: str) -> None:
    async with (
        joined(url, "of-readers", "Ada"),
        flooding("127.0.0.5") as http,
        contextlib.AsyncExitStack() as inside,
    ):
        came = [
            (
                await inside.enter_async_context(
                    http.get(f"{url}/api/v1/rooms/of-readers/captions")
                )
            ).status
            for _ in range(20)
        ]
    assert came == [200] * 15 + [503] * 5


async def peers(url: str) -> None:
    """One offer will do for all of them: each is a peer that never connects."""
    async with flooding("127.0.0.6") as http:
        offer = await an_offer()
        came = []
        for _ in range(34):
            async with http.post(
                f"{url}/whip/of-peers", data=offer, headers={"Content-Type": "application/sdp"}
            ) as answer:
                came.append((answer.status, answer.headers.get("Location")))
        for _, location in came:
            if location is not None:
                await http.delete(url + location)
    assert [status for status, _ in came] == [201] * 30 + [429] * 4


async def an_offer() -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(Voice(silence(0.1, RATE)))
    await connection.setLocalDescription(await connection.createOffer())
    offer = str(connection.localDescription.sdp)
    await connection.close()
    return offer


async def messages(url: str) -> None:
    """They are read no faster than is allowed: the last has its effect when all before it had."""
    async with joined(url, "of-messages", "Eve") as eve:
        for n in range(450):
            await eve.send(type="mute", muted=bool(n % 2))
        await eve.send(type="nonsense")
        seen = len(eve.seen)
        await eve.wait_for(lambda m: bool(m["type"] == "error"))
        # the server's own pings go on between
        assert any(message["type"] == "ping" for message in eve.seen[seen:])


async def pings(url: str) -> None:
    async with joined(url, "of-pings", "Eve") as eve:
        for _ in range(450):
            await eve.socket.ping()
        await eve.send(type="nonsense")
        seen = len(eve.seen)
        await eve.wait_for(lambda m: bool(m["type"] == "error"))
        assert any(message["type"] == "ping" for message in eve.seen[seen:])


async def long_messages(url: str) -> None:
    async with joined(url, "of-long-messages", "Eve") as eve:
        await eve.send(type="offer", sdp="x" * 70_000)
        await until(eve.is_closed.is_set)
        assert eve.socket.close_code == 1009


async def offers(url: str) -> None:
    """Too long, or of too many lines: by either way."""
    long, tall = "v=0\r\n" + "a" * 25_000, "v=0\r\n" + "a=x\r\n" * 400
    async with joined(url, "of-offers", "Eve") as eve, flooding("127.0.0.7") as http:
        for sdp in (long, tall):
            since = len(eve.seen)
            await eve.send(type="offer", sdp=sdp)
            told = await eve.wait_for(lambda m: bool(m["type"] == "error"), since=since)
            assert told["code"] == "too_large"
            async with http.post(
                f"{url}/whip/of-offers", data=sdp, headers={"Content-Type": "application/sdp"}
            ) as answer:
                assert answer.status == 413


async def candidates(url: str) -> None:
    async with joined(url, "of-candidates", "Eve") as eve:
        await eve.speak(Voice(silence(0.1, RATE)))
        for port in range(1_000, 1_080):
            line = f"candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host"
            await eve.send(type="candidate", candidate=line, sdpMid="0")
        told = await eve.wait_for(lambda m: bool(m["type"] == "error"))
        assert told["code"] == "too_many_candidates"
        await eve.wait_until_connected()


async def addresses(url: str) -> None:
    """The server is to send to where only it gets: candidates in an offer."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(Voice(silence(0.1, RATE)))
    await connection.setLocalDescription(await connection.createOffer())
    given = "".join(
        f"a=candidate:9 1 udp 2130706431 {address} 80 typ host\r\n"
        for address in ("169.254.169.254", "10.0.0.1", "224.0.0.1", "0.0.0.0", "fd00:ec2::254")
    )
    end = "a=end-of-candidates\r\n"
    offer = connection.localDescription.sdp.replace(end, given + end)
    assert given in offer
    async with joined(url, "of-addresses", "Eve") as eve:
        await eve.send(type="offer", sdp=offer)
        answer = await eve.wait_for(lambda m: bool(m["type"] == "answer"))
        await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await until(lambda: connection.connectionState == "connected")
        assert await counted(url, "allowed_networks") >= 5
        await connection.close()


async def channel(url: str) -> None:
    async with joined(url, "of-channels", "Eve") as eve:
        await eve.speak(Voice(silence(0.1, RATE)))
        await eve.wait_until_connected()
        assert eve.channel is not None
        for _ in range(40):
            eve.channel.send(b"x" * 1_000)
        told = await eve.wait_for(lambda m: bool(m["type"] == "bye"))
        assert told["reason"] == "flooded"


async def fragments(url: str) -> None:
    """Of messages that have no end: each would be kept, and looked through for one more."""
    async with joined(url, "of-fragments", "Eve") as eve:
        await eve.speak(Voice(silence(0.1, RATE)))
        await eve.wait_until_connected()
        assert eve.connection is not None
        sctp = eve.connection.sctp
        assert sctp is not None
        for n in range(400):
            chunk = DataChunk(flags=SCTP_DATA_UNORDERED)
            chunk.tsn = tsn_plus_one(sctp._local_tsn) if n % 2 else sctp._local_tsn
            sctp._local_tsn = tsn_plus_one(chunk.tsn)
            chunk.stream_id, chunk.user_data = 0, b"x"
            await sctp._send_chunk(chunk)
        told = await eve.wait_for(lambda m: bool(m["type"] == "bye"))
        assert told["reason"] == "flooded"


async def silent_connections(url: str) -> None:
    """Some say nothing, some are for ever at their headers."""
    opened = [await asyncio.open_connection(*_address_of(url)) for _ in range(40)]
    for _, writer in opened[::2]:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")

    async def drip(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"X-More: and more\r\n")
                await writer.drain()
                await asyncio.sleep(0.2)

    dripping = [asyncio.create_task(drip(writer), name="drip") for _, writer in opened[::2]]
    async with asyncio.timeout(15):
        for reader, _ in opened:
            with contextlib.suppress(ConnectionError):
                await reader.read()
    for task in dripping:
        task.cancel()
    await asyncio.wait(dripping)
    for _, writer in opened:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def slow_bodies(url: str) -> None:
    reader, writer = await asyncio.open_connection(*_address_of(url))
    writer.write(
        b"POST /whip/of-bodies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n"
        b"Content-Length: 1000\r\n\r\nv=0\r\n"
    )
    async with asyncio.timeout(15):
        told = await reader.readuntil(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 408 ")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def _address_of(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


# by the limit that each comes to; None where nothing is counted
FLOODS: list[tuple[Flood, str | None]] = [
    (joins, "joins_per_minute"),
    (rooms, "rooms"),
    (seats, "seats_per_address"),
    (reads, "reads_per_minute"),
    (many_offers, "offers_per_minute"),
    (participants, "participants_per_room"),
    (listeners, "listeners_per_room"),
    (peers, "peers_per_address"),
    (messages, "messages_per_s"),
    (pings, "messages_per_s"),
    (long_messages, "message_bytes"),
    (offers, "sdp_lines"),
    (offers, "sdp_bytes"),
    (candidates, "candidates"),
    (addresses, "allowed_networks"),
    (channel, "channel_bytes_per_s"),
    (fragments, "channel_bytes_per_s"),
    (silent_connections, None),
    (slow_bodies, "body_s"),
]


async def counted(url: str, limit: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
        text = await answer.text()
    found = re.search(rf'^roomscribe_limited_total{{limit="{limit}"}} (.*)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(("flood", "limit"), FLOODS, ids=lambda p: getattr(p, "__name__", str(p)))
async def test_a_flood_comes_to_its_limit(server: Running, flood: Flood, limit: str | None) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await flood(server.url)
        if limit is not None:
            assert await counted(server.url, limit) > 0
        assert not ada.is_closed.is_set()
        async with connected(server.url, "standup") as ben:
            await ben.hello("Ben")
            await ada.wait_for(lambda m: m["type"] == "joined" and m["name"] == "Ben")
    # and whatever was taken is given back
    for room in list(server.lobby.rooms.values()):
        for participant in list(room.participants.values()):
            participant.leave("left")
    # who reads events is missed when the next comment is written
    await until(lambda: server.lobby.house.limits.held == 0, 20.0)


async def test_twenty_speakers_go_on_through_all_of_them(tmp_path: Path) -> None:
    limits = {f"LIMITS__{name.upper()}": str(value) for name, value in LIMITS.items()}
    # those here have one address, too, and come back to their streams
    more = {
        "LIMITS__READS_PER_MINUTE": "300",
        "LIMITS__JOINS_PER_MINUTE": "90",
        "LIMITS__SEATS_PER_ADDRESS": "58",
    }
    async with arena_in(tmp_path, {**limits, **more}, speakers=20, rooms=4, listeners=20) as arena:
        before = await arena.watch()
        # the rooms that are opened by one are there for a minute, and leave none for others: last
        several = [flood for flood, _ in dict(FLOODS).items() if flood not in (rooms, reads)]
        for at_once in (several[::2], several[1::2], [rooms]):
            await asyncio.gather(*(flood(arena.url) for flood in at_once))
        after = await arena.watch()
        assert (len(arena.people.peers), arena.people.why) == (20, None)
        assert after.finals > 0
        # beyond half a second more, a bucket of the histogram is a coarse measure of it
        worst = max(1.5 * before.first_text_p95_s, before.first_text_p95_s + 0.5)
        assert after.first_text_p95_s <= worst
        await arena.assert_nothing_lost()


# Rooms in which nothing happens


class TestIdle:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        rooms = RoomSettings(idle_s=60.0)
        return settings.model_copy(update={"rooms": rooms})

    async def test_a_room_in_which_nobody_speaks_ends(self, server: Running) -> None:
        async with joined(server.url, "quiet", "Ada") as ada:
            server.lobby.rooms["quiet"].active_at -= 59.0
            told = await ada.wait_for(lambda m: bool(m["type"] == "bye"))
            assert told["reason"] == "idle"
            assert "quiet" not in server.lobby.rooms
            assert await counted(server.url, "idle_s") == 1

    async def test_a_quiet_call_of_talk_ends_when_talk_ends_it(self, server: Running) -> None:
        async with joined(server.url, "talk-abc", "Ada") as ada:
            server.lobby.rooms["talk-abc"].active_at -= 100.0
            server.lobby.sweep(time.monotonic())
            assert "talk-abc" in server.lobby.rooms
            assert not ada.is_closed.is_set()

"""Some behave badly, or have a bad line, while fifty speak."""

import asyncio
import contextlib
import json

import aiohttp
import pytest
from aiortc import RTCDataChannel

from soak.audience import read_nothing
from soak.load import Load, crowd
from soak.samples import Scraped
from soak.sender import Network
from soak.sse import captions_of
from tests.arena import MEMORY_WITHIN_S, Arena, Watched
from tests.clients import Voice, joined
from tests.nat import RoutedPeer
from tests.speech import tone

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

LOSS_S = 20.0
FLOOD_S = 6.0
CONSENT_S = 40.0
# 20 s after their connections are full, which take the captions of some ten
LET_GO_WITHIN_S = 60.0


async def test_a_third_of_packets_lost_for_20_s_is_named_in_the_ledger(arena: Arena) -> None:
    before = await arena.watch()
    overload_s = (await told_of(arena)).sum("speech_seconds_total", fate="overload")
    arena.people.suffer(Network(loss=0.3))
    await asyncio.sleep(LOSS_S)
    arena.people.suffer(Network())
    during = await arena.look()
    assert during.ledger_wrong == 0
    told = await told_of(arena)
    assert told.sum("packets_lost_total") > 500
    # what is lost on the way is named, and all else of it is heard
    assert told.sum("speech_seconds_total", fate="network") > 0
    assert told.sum("speech_seconds_total", fate="overload") == overload_s
    await arena.finals_go_on()
    await arena.assert_unharmed(before, await arena.watch())


async def test_one_whose_router_forgets_its_port_is_heard_on(arena: Arena) -> None:
    room, name = arena.people.load.room_names[1], "Routed"
    peer = RoutedPeer(arena.session, arena.url, room, name)
    await peer.join()
    arena.people.add(peer)
    before = await arena.watch()
    await peer.router.rebind()
    # who gives no consent is given up within this
    during = await arena.watch(CONSENT_S)
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    heard = await transcribed(arena, room, name)
    after = await arena.watch()
    assert await transcribed(arena, room, name) >= heard + 16_000
    await arena.assert_unharmed(before, after)


async def transcribed(arena: Arena, room: str, name: str) -> int:
    async with arena.session.get(f"{arena.url}/api/v1/rooms/{room}") as answer:
        people = (await answer.json())["participants"]
    (person,) = [person for person in people if person["name"] == name]
    return int(person["audio"]["transcribed"])


async def test_a_hundred_who_join_at_once_take_nobody_along(arena: Arena) -> None:
    before = await arena.watch()
    # they listen, so that what is measured is of the fifty
    during = await _a_hundred_come_and_go(arena, talkers=0.0)
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_nothing_lost()
    after = await arena.watch()
    assert after.first_text_p95_s <= 1.5 * before.first_text_p95_s


async def test_a_second_hundred_finds_the_memory_that_the_first_took(arena: Arena) -> None:
    """What they leave is room in pages that others use: it is not given back, nor does it grow."""
    await _a_hundred_come_and_go(arena)
    await asyncio.sleep(MEMORY_WITHIN_S)
    before = await arena.watch()
    await _a_hundred_come_and_go(arena)
    await arena.assert_unharmed(before, await arena.watch())


async def _a_hundred_come_and_go(arena: Arena, talkers: float = 1.0) -> Watched:
    """What it was like while they came and were there."""
    load = Load(arena.url, speakers=100, rooms=10, at_once=100, talkers=talkers)
    async with crowd(load) as more:
        watching = asyncio.create_task(arena.watch())
        await more.gather()
        assert (len(more.peers), more.why) == (100, None)
        return await watching


async def test_fifty_who_never_read_are_let_go_and_the_others_read_on(arena: Arena) -> None:
    before = await arena.watch()
    rooms = arena.people.load.room_names
    async with asyncio.TaskGroup() as tasks:
        sleeping = [
            tasks.create_task(read_nothing(captions_of(arena.url, rooms[number % len(rooms)])))
            for number in range(50)
        ]
        during = await arena.watch()
        assert (await told_of(arena)).sum("listeners", way="sse") == len(rooms) + 50
        async with asyncio.timeout(LET_GO_WITHIN_S):
            # another process: no event tells
            while (await told_of(arena)).sum("listeners_dropped_total") < 50:  # noqa: ASYNC110
                await asyncio.sleep(1.0)
        for sleeper in sleeping:
            assert not sleeper.done()
            sleeper.cancel()
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_unharmed(before, await arena.watch())


async def told_of(arena: Arena) -> Scraped:
    async with arena.session.get(f"{arena.url}/metrics") as answer:
        return Scraped(await answer.text())


async def limited(arena: Arena, limit: str) -> float:
    return (await told_of(arena)).sum("limited_total", limit=limit)


async def test_who_floods_the_socket_slows_nobody_else(arena: Arena) -> None:
    before = await arena.watch()
    async with joined(arena.url, "load-1", "Flood") as client:
        flooding = asyncio.create_task(_flood_socket(client.socket))
        during = await arena.watch(FLOOD_S)
        flooding.cancel()
        await asyncio.wait({flooding})
    assert await limited(arena, "messages_per_s") > 0
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_unharmed(before, await arena.watch())


async def _flood_socket(socket: aiohttp.ClientWebSocketResponse) -> None:
    text = json.dumps({"type": "mute", "muted": True}) + " " * 2000
    with contextlib.suppress(ConnectionError):
        while True:
            for _ in range(100):
                await socket.send_str(text)
            await asyncio.sleep(0.01)


async def test_who_floods_the_data_channel_slows_nobody_else(arena: Arena) -> None:
    before = await arena.watch()
    async with joined(arena.url, "load-1", "Flood") as client:
        await client.speak(Voice(tone(1.0, 48_000)))
        await client.wait_until_connected()
        channel = client.channel
        assert channel is not None
        flooding = asyncio.create_task(_flood_channel(channel))
        during = await arena.watch(FLOOD_S)
        flooding.cancel()
        await asyncio.wait({flooding})
    assert await limited(arena, "channel_bytes_per_s") > 0
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_unharmed(before, await arena.watch())


async def _flood_channel(channel: RTCDataChannel) -> None:
    while True:
        if channel.bufferedAmount < 1 << 20:
            channel.send("x" * 1000)
        await asyncio.sleep(0)

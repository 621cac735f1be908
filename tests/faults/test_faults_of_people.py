"""Some behave badly, or have a bad line, while fifty speak."""

import asyncio
import contextlib
import json

import aiohttp
import pytest
from aiortc import RTCDataChannel

from soak.load import Load, crowd
from soak.sender import Network
from tests.arena import MEMORY_WITHIN_S, Arena
from tests.clients import Voice, joined
from tests.nat import RoutedPeer
from tests.speech import tone

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

LOSS_S = 20.0
FLOOD_S = 6.0
CONSENT_S = 40.0
UNREAD_S = 25.0  # who reads nothing is let go after 20 s


async def test_a_third_of_packets_lost_for_20_s_is_named_in_the_ledger(arena: Arena) -> None:
    before = await arena.watch()
    arena.people.suffer(Network(loss=0.3))
    await asyncio.sleep(LOSS_S)
    arena.people.suffer(Network())
    during = await arena.look()
    assert during.ledger_wrong == 0
    async with arena.session.get(f"{arena.url}/metrics") as answer:
        text = await answer.text()
    lost = [line for line in text.splitlines() if line.startswith("roomscribe_packets_lost_total ")]
    assert float(lost[0].split()[1]) > 500
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
    await _a_hundred_come_and_go(arena)
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


async def _a_hundred_come_and_go(arena: Arena) -> None:
    async with crowd(Load(arena.url, speakers=100, rooms=10, at_once=100)) as more:
        await more.gather()
        assert (len(more.peers), more.failed) == (100, 0)
        await arena.watch()


async def test_fifty_who_never_read_are_let_go_and_the_others_read_on(arena: Arena) -> None:
    before = await arena.watch()
    rooms = arena.people.load.room_names
    async with contextlib.AsyncExitStack() as stack:
        for number in range(50):
            url = f"{arena.url}/api/v1/rooms/{rooms[number % len(rooms)]}/captions"
            await stack.enter_async_context(arena.session.get(url))
        during = await arena.watch(UNREAD_S)
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_unharmed(before, await arena.watch())


async def test_who_floods_the_socket_slows_nobody_else(arena: Arena) -> None:
    before = await arena.watch()
    async with joined(arena.url, "load-1", "Flood") as client:
        flooding = asyncio.create_task(_flood_socket(client.socket))
        during = await arena.watch(FLOOD_S)
        flooding.cancel()
        await asyncio.wait({flooding})
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
    assert during.first_text_p95_s <= 1.5 * before.first_text_p95_s
    await arena.assert_unharmed(before, await arena.watch())


async def _flood_channel(channel: RTCDataChannel) -> None:
    while True:
        if channel.bufferedAmount < 1 << 20:
            channel.send("x" * 1000)
        await asyncio.sleep(0)

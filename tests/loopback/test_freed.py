"""A peer that has gone is freed by reference counting: no full collection has to find it."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
import pytest_asyncio

from media.peer import Peer, PeerEvent, Sent
from media.track import RtpPacket
from server.app import running
from server.config import Settings
from soak.load import Load, crowd
from tests.clients import Voice
from tests.media.pages import Page, on_loopback, peer_of, until, wait_for
from tests.speech import tone


@pytest_asyncio.fixture(autouse=True)
async def without_collections() -> AsyncIterator[None]:
    with on_loopback():
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()


async def closed_peer() -> dict[str, weakref.ref[object]]:
    """Parts of a peer that heard a page, had its channel, and was closed."""
    async with peer_of(Page(Voice(tone(3.0, 48_000)))) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)
        await until(lambda: peer.has_open_channel and peer.ledger.span > 0)
        return _parts(peer)


async def left_peer() -> dict[str, weakref.ref[object]]:
    """Parts of a peer whose page went first: aiortc has forgotten its sockets when it is closed."""
    page = Page(Voice(tone(3.0, 48_000)))
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)
        await until(lambda: peer.has_open_channel and peer.ledger.span > 0)
        parts = _parts(peer)
        await page.connection.close()
        await until(lambda: not _agent(peer)._protocols)
        return parts


def _agent(peer: Peer) -> Any:
    (transceiver,) = peer._connection.getTransceivers()
    return transceiver.receiver.transport.transport._connection


def _parts(peer: Peer) -> dict[str, weakref.ref[object]]:
    connection = peer._connection
    (transceiver,) = connection.getTransceivers()
    dtls = transceiver.receiver.transport
    agent = dtls.transport._connection
    parts = {
        "peer": peer,
        "connection": connection,
        "receiver": transceiver.receiver,
        "dtls": dtls,
        "ice": dtls.transport,
        "agent": agent,
        "socket": agent._protocols[0],
        "sctp": connection.sctp,
        "track": peer._track,
        "tap": peer._tap,
    }
    return {name: weakref.ref[object](part) for name, part in parts.items()}


async def unconnected_peer() -> dict[str, weakref.ref[object]]:
    """Parts of a peer that was closed while it still looked for a way to its page."""
    page, peer = Page(Voice(tone(1.0, 48_000))), Peer()
    try:
        await peer.answer(await page.offer())
        await until(lambda: peer.state == "connecting")
        return _parts(peer)
    finally:
        await page.connection.close()
        await peer.close()


async def unanswered_peer() -> dict[str, weakref.ref[object]]:
    """Parts of a peer that was closed in the turn in which it answered."""
    page, peer = Page(Voice(tone(1.0, 48_000))), Peer()
    try:
        await peer.answer(await page.offer())
        return _parts(peer)
    finally:
        await peer.close()
        await page.connection.close()


@pytest.mark.parametrize("closed", [closed_peer, left_peer, unconnected_peer, unanswered_peer])
async def test_a_closed_peer_is_freed_at_once(
    closed: Callable[[], Awaitable[dict[str, weakref.ref[object]]]],
) -> None:
    parts = await closed()

    async with asyncio.timeout(20):
        # the loop's last callbacks of closed transports; no event tells of it
        while any(part() is not None for part in parts.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("vad", ["energy", "silero"])
async def test_who_leaves_a_room_that_goes_on_is_freed_at_once(
    settings: Settings, vad: Literal["energy", "silero"]
) -> None:
    heard = settings.transcriber.model_copy(update={"vad": vad})
    async with running(settings.model_copy(update={"transcriber": heard})) as server:
        await server.lobby.house.engine.ready.wait()
        gc.collect()
        async with crowd(Load(server.url, speakers=2)) as people:
            await people.gather()
            (room,) = server.lobby.rooms.values()
            present = room.participants.values()
            await until(lambda: all(who.fates().transcribed > 0 for who in present))
            parts = [part for who in present for part in (who, who.stream, who.peer)]
            held = [weakref.ref(part) for part in parts]
            del parts
            await people.let_go(people.peers[0])
            await until(lambda: sum(part() is not None for part in held) == 3)


async def test_a_closed_peer_says_so_and_takes_nothing_more() -> None:
    page = Page(Voice(tone(1.0, 48_000)))
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)
        await until(lambda: peer.has_open_channel and peer.ledger.span > 0)
        assert peer._tap is not None
        receive, codec_of = peer._tap._receive, peer._tap.codec_name
        opus = next(kind for kind in range(96, 128) if codec_of(kind) == "opus")
        await peer.close()
        span = peer.ledger.span

        # of datagrams that were under way
        for n in range(10):
            receive(RtpPacket(1, opus, n, 960 * n, b"\xf8\xff\xfe"), time.monotonic())

        assert peer.ledger.span == span
        assert peer.state == "closed"
        assert not peer.has_open_channel
        assert peer.send("a caption", is_final=True) is Sent.NO_CHANNEL

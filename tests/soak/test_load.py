"""The load generator against a server in this process: it must not lie about either."""

import asyncio

import numpy as np
import pytest

from server.app import Running
from soak.load import Load, crowd
from soak.sender import Network
from soak.speech import decode_all, encode, load_speech
from tests.clients import until

pytestmark = pytest.mark.slow


def test_the_speech_is_what_a_browser_would_send() -> None:
    samples = load_speech()
    assert len(samples) / 48_000 > 20
    assert float(np.abs(samples).max()) > 0.1
    for packet_ms in (20, 60):
        speech = encode(samples, packet_ms, wideband=True)
        seconds = decode_all([packet.payload for packet in speech.packets if packet.payload])
        assert seconds == pytest.approx(len(speech.packets) * packet_ms / 1000, rel=0.01)
        # pauses between sentences are silence that DTX leaves out
        assert 0 < sum(packet.is_silence for packet in speech.packets) < len(speech.packets) / 2


async def test_a_crowd_is_heard_and_leaves_nothing(server: Running) -> None:
    load = Load(server.url, speakers=4, rooms=2, network=Network(loss=0.05, jitter_ms=10))
    async with crowd(load) as people:
        await people.gather()
        assert (len(people.peers), people.why) == (4, None)
        # it does as the answer asks
        assert all(peer.wanted.packet_ms == 60 and peer.wanted.wideband for peer in people.peers)
        rooms = server.lobby.rooms
        assert set(rooms) == {"load-0", "load-1"}
        peers = [peer for room in rooms.values() for peer in room.peers]
        await until(lambda: all(peer.ledger.span > 32_000 for peer in peers))
        report = people.report()
    assert report["packet_ms"] == [60]
    await until(lambda: not any(room.peers for room in rooms.values()))


async def test_those_who_vanish_are_let_go_too(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.1)
    async with crowd(Load(server.url, speakers=2, abrupt=1.0)) as people:
        await people.gather()
        (room,) = server.lobby.rooms.values()
        await people.let_go(people.peers[0])
        assert people.abrupt == 1
        await until(lambda: len(room.peers) == 1)


async def test_one_who_leaves_takes_no_other_along(server: Running) -> None:
    """Packets of theirs are still under way, to a socket that is closed."""
    load = Load(server.url, speakers=2, network=Network(jitter_ms=1000))
    async with crowd(load) as people:
        await people.gather()
        await until(lambda: people.audio_s > 1.0)
        await people.let_go(people.peers[0])
        await asyncio.sleep(1.2)  # until the last of them would have been sent
        sent_s = people.audio_s
        await until(lambda: people.audio_s > sent_s)

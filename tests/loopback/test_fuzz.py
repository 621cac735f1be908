"""Spoilt datagrams to the sockets of a connected peer: nothing raises out of it, it hears on,
and its neighbour in the same loop notices nothing.

ROOMSCRIBE_FUZZ_S says how long all of it lasts, as in tests/fuzz; a seed is part of each test's
name.
"""

import asyncio
import gc
import logging
import os
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Callable

import numpy as np
import pylibsrtp
import pytest
import pytest_asyncio

from media import reports
from media.pcm import SAMPLE_RATE, PcmChunk
from media.peer import Peer, PeerEvent, Sent
from media.track import Ledger
from tests.clients import Voice
from tests.media import spoilt
from tests.media.pages import Page, listening, on_loopback, peer_of, until, wait_for
from tests.media.rtp import correlation
from tests.speech import Samples, at_16k, spoken, tone

RATE = 48_000
FUZZ_S = float(os.environ.get("ROOMSCRIBE_FUZZ_S", "60"))
BURST = 20
CONNECT_S = 30.0
STRANGERS = 40  # addresses: aioice treats one that it does not know in a way of its own


@pytest_asyncio.fixture(autouse=True)
async def loopback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Nothing may fail unseen, and nothing may be logged as an error or with a traceback."""
    monkeypatch.setattr(reports, "FIRST_REPORT_S", 0.2)
    monkeypatch.setattr(reports, "REPORT_EVERY_S", 0.2)
    caplog.set_level(logging.INFO)
    with on_loopback():
        yield
        gc.collect()  # a task that failed tells of it when it goes
    told = [record.getMessage() for record in caplog.get_records("call") if is_fault(record)]
    assert not told, f"{len(told)} faults, the first: {told[0]}"


def is_fault(record: logging.LogRecord) -> bool:
    # what aioice tells of below a warning names connections that are gone by now
    return record.levelno >= logging.WARNING and (
        record.levelno >= logging.ERROR
        or record.exc_info is not None
        or "Traceback" in record.getMessage()
    )


def bring(peer: Peer, datagram: bytes, address: tuple[str, int]) -> None:
    """As a socket does. The one place here that knows where the sockets of a peer are."""
    ice = peer._connection.getReceivers()[0].transport.transport
    protocols = ice._connection._protocols
    assert protocols, "the peer has closed its sockets"
    protocols[0].datagram_received(datagram, address)


class Flood:
    """Makes datagrams from a seed and brings them to a peer, as if the page had sent them."""

    def __init__(self, seed: int, page: Page, peer: Peer) -> None:
        self.chance = random.Random(seed)
        self.brought = 0
        self._latest: deque[str] = deque(maxlen=3)
        self._page, self._peer = page, peer
        self._dtls = page.sender.transport
        self._address, self._username, self._password = _ice_of(page)
        self._good = bytes([0x80, 111]) + bytes(50)
        self._carry = self._dtls._send_rtp
        self._sources = [self.chance.getrandbits(32) for _ in range(40)]
        self._kinds: tuple[Callable[[], list[bytes]], ...] = (
            lambda: [spoilt.garbage(self.chance)],
            lambda: [spoilt.dtls(self.chance)],
            lambda: [spoilt.stun(self.chance, self._username, self._password)],
            self._rtp,
            self._rtcp,
        )

    async def run(self, seconds: float) -> None:
        """Bring datagrams of all kinds, and spoil what the page sends by itself."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with pytest.MonkeyPatch.context() as undone:
            undone.setattr(self._dtls, "_send_rtp", self._send_spoilt)
            while True:
                self.bring_some(self._kinds)
                if loop.time() > end:
                    break
                await asyncio.sleep(0.005)  # the rest of the loop lives on

    def bring_before_keys(self) -> None:
        """What a stranger can send while the two still connect."""
        self.bring_some(self._kinds[:1] + self._kinds[2:3])

    def bring_some(self, kinds: tuple[Callable[[], list[bytes]], ...]) -> None:
        for _ in range(BURST):
            for datagram in self.chance.choice(kinds)():
                stranger = ("127.0.0.1", self.chance.randint(1, STRANGERS))
                address = self._address if self.chance.random() < 0.9 else stranger
                self._latest.append(datagram.hex())
                self.brought += 1
                try:
                    bring(self._peer, datagram, address)
                except Exception as error:
                    told = f"at {self.brought}, of the latest: {list(self._latest)}"
                    raise AssertionError(told) from error

    def assert_alive(self) -> None:
        latest = ", ".join(self._latest)
        assert self._peer.state == "connected", f"gone at {self.brought} after {latest}"

    def _rtp(self) -> list[bytes]:
        """A few packets of one source in a row, from a real sender's keys or forged."""
        chance = self.chance
        ssrc, sequence = chance.choice(self._sources), chance.getrandbits(16)
        datagrams = []
        for _ in range(chance.randint(1, 8)):
            sequence += chance.choice((1, 1, 1, 0, 2, 5, -1, 3_000))
            plain = spoilt.rtp(chance, self._good, ssrc=ssrc, sequence=sequence & 0xFFFF)
            datagrams.append(self._protected(plain, self._dtls._tx_srtp.protect))
        return datagrams

    def _rtcp(self) -> list[bytes]:
        own = int.from_bytes(self._good[8:12], "big")
        plain = spoilt.rtcp(self.chance, [own, *self._sources[:5]])
        return [self._protected(plain, self._dtls._tx_srtp.protect_rtcp)]

    def _protected(self, plain: bytes, protect: Callable[[bytes], bytes]) -> bytes:
        """Most of them whole, some spoilt afterwards; as it is what libsrtp does not take."""
        try:
            datagram = protect(plain)
        except (pylibsrtp.Error, ValueError):
            return plain
        return datagram if self.chance.random() < 0.85 else spoilt.spoil(self.chance, datagram)

    async def _send_spoilt(self, good: bytes) -> None:
        is_rtp = not 192 <= good[1] <= 208
        if is_rtp:
            self._good = good
        if is_rtp and self.chance.random() < 0.5:
            try:
                await self._carry(spoilt.in_transit(self.chance, good))
            except (pylibsrtp.Error, ValueError):
                pass  # libsrtp does not take it: the good one then
            else:
                return
        await self._carry(good)


def _ice_of(page: Page) -> tuple[tuple[str, int], str, str]:
    """The page's address, and what its checks are signed with."""
    offer = page.connection.localDescription.sdp
    answer = page.connection.remoteDescription.sdp
    candidate = re.search(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) ", offer, re.M)
    ours, theirs = (re.search(r"^a=ice-ufrag:(\S+)", sdp, re.M) for sdp in (offer, answer))
    password = re.search(r"^a=ice-pwd:(\S+)", answer, re.M)
    assert candidate
    assert ours
    assert theirs
    assert password
    return (candidate[1], int(candidate[2])), f"{theirs[1]}:{ours[1]}", password[1]


def alike(chunks: list[PcmChunk], said: Samples) -> float:
    """How like what was said the chunks sound, wherever in them it stands."""
    heard, wanted = np.concatenate([chunk.samples for chunk in chunks]), at_16k(said)
    _, after_ms = correlation(heard, wanted, within_ms=5_000)
    at = max(0, round(after_ms * SAMPLE_RATE / 1000))
    return correlation(heard[at : at + len(wanted)], wanted)[0]


async def hears(page: Page, peer: Peer) -> float:
    """Let the page say something from now on; how well the peer hears it."""
    said = spoken("please open the meeting", rate=RATE)
    while len(peer.feed):
        await peer.feed.get()
    async with listening(peer) as chunks:
        voice = Voice(said)
        page.sender.replaceTrack(voice)
        await voice.is_done.wait()
        heard = peer.ledger.span
        await until(lambda: peer.ledger.span > heard + SAMPLE_RATE // 2)
    return alike(chunks, said)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_flood_of_spoilt_datagrams_harms_nobody(seed: int) -> None:
    page, neighbour = Page(Voice(tone(90.0, RATE))), Page(Voice(tone(90.0, RATE)))
    async with peer_of(neighbour) as other, peer_of(page) as peer:
        await until(lambda: peer.ledger.heard > 0 and other.ledger.heard > 0)
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        flood = Flood(seed, page, peer)

        await flood.run(FUZZ_S / 3)

        flood.assert_alive()
        assert peer.send("still here", is_final=True) is Sent.SENT
        assert await page.read() == "still here"
        assert other.packets_lost == 0
        assert other.ledger.span == other.ledger.heard + other.ledger.overload
        clean, healthy = await asyncio.gather(hears(page, peer), hears(neighbour, other))
        assert healthy > 0.9
        assert clean > 0.9


@pytest.mark.parametrize("seed", [3])
async def test_a_flood_before_the_two_are_connected_does_not_keep_them_apart(seed: int) -> None:
    end = asyncio.get_running_loop().time() + FUZZ_S / 6
    while True:
        page = Page(Voice(tone(5.0, RATE)))
        async with peer_of(page) as peer:
            flood = Flood(seed, page, peer)
            async with asyncio.timeout(CONNECT_S):
                while peer.ledger == Ledger():
                    flood.bring_before_keys()
                    await asyncio.sleep(0.005)
            flood.assert_alive()
        if asyncio.get_running_loop().time() > end:
            break
        seed += 1_000

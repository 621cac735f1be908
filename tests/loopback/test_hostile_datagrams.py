"""One datagram that cannot be read costs itself: the peer hears and reads on."""

import gc
import re
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiortc.rtcsctptransport import Chunk, DataChunk, HeartbeatChunk, serialize_packet
from aiortc.rtp import RtcpPsfbPacket

from media.peer import Peer, PeerEvent, Sent
from tests.clients import Voice
from tests.media.pages import Page, on_loopback, peer_of, until, wait_for
from tests.speech import tone

COOKIE = 0x2112A442
PRIORITY, FINGERPRINT = 0x0024, 0x8028


@pytest_asyncio.fixture(autouse=True)
async def loopback() -> AsyncIterator[None]:
    with on_loopback():
        yield
        gc.collect()  # a task that failed tells of it when it goes


def check(attribute: int, value: bytes) -> bytes:
    """An unsigned STUN request of one attribute."""
    body = struct.pack("!HH", attribute, len(value)) + value + bytes(-len(value) % 4)
    return struct.pack("!HHI", 1, len(body), COOKIE) + bytes(12) + body


FROM_ANYONE = {
    "empty": b"",
    "rtcp-beyond-1500-bytes": bytes([0x80, 200]) + bytes(1_499),
    "rtp-beyond-1500-bytes": bytes([0x80, 111]) + bytes(1_499),
    "a-fingerprint-of-no-bytes": check(FINGERPRINT, b""),
    "a-priority-of-two-bytes": check(PRIORITY, b"ab"),
}


@pytest.mark.parametrize("name", FROM_ANYONE)
async def test_a_datagram_of_a_stranger_ends_nothing(name: str) -> None:
    page = Page(Voice(tone(30.0, 48_000)))
    async with peer_of(page) as peer:
        await ready(page, peer)
        answer = page.connection.remoteDescription.sdp
        candidate = re.search(r"^a=candidate:\S+ 1 udp \d+ (127\S+) (\d+) ", answer, re.M)
        assert candidate
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(FROM_ANYONE[name], (candidate[1], int(candidate[2])))
        await goes_on(page, peer)


async def test_a_bitrate_of_more_sources_than_it_tells_ends_nothing() -> None:
    """aiortc's parser of REMB reads beyond its end."""
    page = Page(Voice(tone(30.0, 48_000)))
    async with peer_of(page) as peer:
        await ready(page, peer)
        told = RtcpPsfbPacket(15, 1, 0, b"REMB\xff\0\0\0")
        await page.sender.transport._send_rtp(bytes(told))
        await goes_on(page, peer)


async def test_sctp_that_is_cut_short_ends_nothing() -> None:
    """aiortc's parser of chunks reads beyond their end."""
    page = Page(Voice(tone(30.0, 48_000)))
    async with peer_of(page) as peer:
        await ready(page, peer)
        sctp = page.connection.sctp
        assert sctp is not None
        cut = Chunk(flags=3, body=bytes(2))
        cut.type = DataChunk.type
        tag = sctp._remote_verification_tag
        await sctp.transport._send_data(serialize_packet(5000, 5000, tag, cut))
        await goes_on(page, peer)


async def test_a_parameter_of_no_length_ends_nothing() -> None:
    """aiortc's parser of parameters would read it for ever."""
    page = Page(Voice(tone(30.0, 48_000)))
    async with peer_of(page) as peer:
        await ready(page, peer)
        sctp = page.connection.sctp
        assert sctp is not None
        endless = Chunk(body=bytes([0, 1, 0, 0]))
        endless.type = HeartbeatChunk.type
        tag = sctp._remote_verification_tag
        await sctp.transport._send_data(serialize_packet(5000, 5000, tag, endless))
        await goes_on(page, peer)


async def ready(page: Page, peer: Peer) -> None:
    await until(lambda: peer.ledger.heard > 0)
    await wait_for(peer, PeerEvent.CHANNEL_OPEN)
    await until(lambda: page.channel is not None and page.channel.readyState == "open")


async def goes_on(page: Page, peer: Peer) -> None:
    heard = peer.ledger.heard
    await until(lambda: peer.ledger.heard > heard + 8_000 or peer.state != "connected")
    assert peer.state == "connected"
    assert peer.send("still here", is_final=True) is Sent.SENT
    assert await page.read() == "still here"

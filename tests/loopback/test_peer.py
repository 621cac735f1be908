"""`Peer` against a real aiortc connection in the same process."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator

import aioice.ice
import aioice.stun
import av
import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection
from aiortc.exceptions import InvalidStateError
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtp import RtcpByePacket

from media.errors import RemoteMediaError
from media.feed import FeedEnded
from media.pcm import SAMPLE_RATE, PcmChunk
from media.peer import (
    CAPTIONS_LABEL,
    FINAL_CEILING_BYTES,
    TENTATIVE_CEILING_BYTES,
    Peer,
    PeerEvent,
    Sent,
)
from media.track import Ledger, Origin
from tests.clients import Voice
from tests.logs import logged
from tests.media.pages import Page, listening, on_loopback, peer_of, until, wait_for
from tests.media.rtp import assert_in_order, correlation, timeline
from tests.speech import Samples, at_16k, peak, silence, spoken, tone

RATE = 48_000


@pytest_asyncio.fixture(autouse=True)
async def loopback() -> AsyncIterator[None]:
    with on_loopback():
        yield


async def test_what_a_page_says_comes_as_chunks() -> None:
    said = spoken("please open the meeting", rate=RATE)
    voice = Voice(said)
    async with peer_of(Page(voice)) as peer, listening(peer) as chunks:
        await wait_for(peer, PeerEvent.CONNECTED)
        await voice.is_done.wait()
        await until(lambda: peer.ledger.span > len(said) / 3)

    alike, _ = correlation(timeline(chunks), at_16k(said), within_ms=400)
    assert alike > 0.9
    assert_in_order(chunks)
    assert chunks[0].start_sample == 0
    assert peer.ledger == Ledger(heard=chunks[-1].end_sample)
    assert peer.packets_lost == 0


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_a_page_may_speak_another_codec(codec: str) -> None:
    said = tone(0.6, RATE, level=0.5)
    voice = Voice(said)
    page = Page(voice)
    wanted = [c for c in RTCRtpSender.getCapabilities("audio").codecs if c.name == codec]
    page.connection.getTransceivers()[0].setCodecPreferences(wanted)
    async with peer_of(page) as peer, listening(peer) as chunks:
        await voice.is_done.wait()
        await until(lambda: peer.ledger.span > len(said) / 3)

    alike, _ = correlation(timeline(chunks), at_16k(said), within_ms=400)
    assert alike > 0.9


async def test_the_clock_of_a_second_peer_goes_on_from_the_first() -> None:
    voice = Voice(tone(0.3, RATE))
    origin = Origin(sample=5 * SAMPLE_RATE, at=time.monotonic() - 2.0)
    async with peer_of(Page(voice), Peer(origin=origin)) as peer, listening(peer) as chunks:
        await voice.is_done.wait()
        await until(lambda: peer.ledger.heard > 0)

    assert 7 * SAMPLE_RATE <= chunks[0].start_sample < 10 * SAMPLE_RATE
    assert peer.ledger.span == chunks[-1].end_sample - origin.sample


async def test_a_peer_connects_then_opens_its_channel() -> None:
    async with peer_of(Page()) as peer:
        assert not peer.has_open_channel
        assert await wait_for(peer, PeerEvent.CHANNEL_OPEN) == [PeerEvent.CONNECTED]

        assert peer.has_open_channel
        assert peer.state == "connected"


async def test_captions_reach_the_page_in_their_order() -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)

        assert peer.send("please", is_final=False) is Sent.SENT
        assert peer.send("please open", is_final=False) is Sent.SENT
        assert peer.send("please open the meeting", is_final=True) is Sent.SENT

        assert [await page.read() for _ in range(3)] == [
            "please",
            "please open",
            "please open the meeting",
        ]


async def test_before_the_channel_is_open_nothing_is_sent() -> None:
    async with peer_of(Page(channel=None)) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)

        assert peer.send("please", is_final=True) is Sent.NO_CHANNEL


async def test_a_data_channel_of_another_name_is_refused() -> None:
    page = Page(channel="chat")
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_REFUSED)

        assert page.channel is not None
        await until(lambda: page.channel is not None and page.channel.readyState == "closed")
        assert not peer.has_open_channel
        assert peer.send("please", is_final=True) is Sent.NO_CHANNEL


async def test_a_refused_channel_leaves_the_right_one_open() -> None:
    page = Page()
    page.connection.createDataChannel("chat")
    async with peer_of(page) as peer:
        events = await wait_for(peer, PeerEvent.CHANNEL_REFUSED)
        if PeerEvent.CHANNEL_OPEN not in events:
            await wait_for(peer, PeerEvent.CHANNEL_OPEN)

        assert peer.send("please", is_final=True) is Sent.SENT
        assert await page.read() == "please"


async def test_a_channel_that_the_page_closes_is_told() -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        assert page.channel is not None

        page.channel.close()
        await wait_for(peer, PeerEvent.CHANNEL_CLOSED)

        assert peer.send("please", is_final=True) is Sent.NO_CHANNEL


async def test_what_a_page_sends_on_the_channel_changes_nothing() -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        assert page.channel is not None
        await until(lambda: page.channel is not None and page.channel.readyState == "open")

        page.channel.send("hello")
        page.channel.send(b"\x00\xff")

        await until(lambda: page.channel is not None and page.channel.bufferedAmount == 0)
        assert peer.send("a caption", is_final=True) is Sent.SENT
        assert await page.read() == "a caption"


async def test_a_page_that_does_not_read_is_skipped_then_full_then_catches_up() -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        await until(lambda: page.channel is not None and page.channel.readyState == "open")
        read_on = page.stop_reading()
        caption = "x" * 1_023

        tentative = await _send_until(peer, caption, Sent.SKIPPED, is_final=False)
        finals = await _send_until(peer, caption, Sent.FULL, is_final=True)

        # what SCTP took before it waits for an answer stands beside what is buffered
        taken = 64
        assert (
            TENTATIVE_CEILING_BYTES // 1_023
            <= tentative
            <= TENTATIVE_CEILING_BYTES // 1_023 + taken
        )
        assert tentative + finals == pytest.approx(FINAL_CEILING_BYTES // 1_023, abs=taken)
        assert peer.send(caption, is_final=False) is Sent.SKIPPED

        read_on()
        for _ in range(tentative + finals):
            assert await page.read() == caption
        assert peer.send("caught up", is_final=False) is Sent.SENT
        assert await page.read() == "caught up"


async def _send_until(peer: Peer, text: str, wanted: Sent, *, is_final: bool) -> int:
    """Send until the peer says `wanted`; returns how many went before."""
    for count in range(2_000):
        sent = peer.send(text, is_final=is_final)
        if sent is wanted:
            return count
        assert sent is Sent.SENT
        await asyncio.sleep(0)  # aiortc moves what it can
    raise AssertionError(f"never {wanted}")


async def test_a_text_longer_than_the_page_takes_does_not_raise() -> None:
    page = Page()
    peer = Peer()
    try:
        offer = await page.offer()
        small, count = re.subn(r"a=max-message-size:\d+", "a=max-message-size:5", offer)
        assert count == 1
        await page.take(await peer.answer(small))
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)

        assert peer.send("please open", is_final=True) is Sent.NO_CHANNEL
        assert peer.send("short", is_final=True) is Sent.SENT
        assert await page.read() == "short"
    finally:
        await page.connection.close()
        await peer.close()


async def test_after_the_end_of_the_audio_captions_still_go_out() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        await until(lambda: peer.ledger.heard > 0)

        peer.end_audio()
        span = peer.ledger.span
        assert [chunk async for chunk in peer.feed][-1].end_sample == span
        with pytest.raises(FeedEnded):
            await peer.feed.get()

        assert peer.send("the last final", is_final=True) is Sent.SENT
        assert await page.read() == "the last final"
        assert peer.ledger.span == span
        assert peer.state == "connected"


async def test_the_answer_is_complete() -> None:
    page = Page()
    peer = Peer()
    try:
        answer = await peer.answer(await page.offer())
    finally:
        await page.connection.close()
        await peer.close()

    assert answer.startswith("v=0")
    assert "a=candidate:" in answer
    assert " 127.0.0.1 " in answer
    assert "a=end-of-candidates" in answer
    assert "a=recvonly" in answer


async def test_a_later_offer_of_the_same_session_is_answered() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer, listening(peer) as chunks:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        await until(lambda: len(chunks) > 1)

        again = await page.offer()
        assert peer.is_same_session(again)
        await page.take(await peer.answer(again))

        heard = len(chunks)
        await until(lambda: len(chunks) > heard + 2)
        assert peer.send("still here", is_final=True) is Sent.SENT
        assert await page.read() == "still here"

    assert_in_order(chunks)


async def test_an_offer_of_another_connection_is_another_session() -> None:
    page, other = Page(), Page()
    peer = Peer()
    try:
        offer = await page.offer()
        assert not peer.is_same_session(offer)
        assert not peer.is_same_session("")
        await peer.answer(offer)

        assert peer.is_same_session(offer)
        assert peer.is_same_session(offer.replace("\r\n", "\n"))
        assert not peer.is_same_session(await other.offer())
        assert not peer.is_same_session("")
    finally:
        await page.connection.close()
        await other.connection.close()
        await peer.close()


async def test_video_beside_the_audio_is_inactive() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    page.connection.addTransceiver("video", direction="sendonly")
    peer = Peer()
    try:
        answer = await peer.answer(await page.offer())
        await page.take(answer)
        await until(lambda: peer.ledger.heard > 0)
    finally:
        await page.connection.close()
        await peer.close()

    sections = {
        section.split(" ", 1)[0]: section.splitlines() for section in answer.split("\r\nm=")[1:]
    }
    assert "a=recvonly" in sections["audio"]
    assert "a=inactive" in sections["video"]


async def test_of_two_voices_the_first_is_heard() -> None:
    page = Page(Voice(tone(30.0, RATE, level=0.5)))
    second = Voice(silence(0.1, RATE))
    page.connection.addTransceiver(second, direction="sendonly")
    async with peer_of(page) as peer, listening(peer) as chunks:
        await until(lambda: len(chunks) > 3)

    assert peak(chunks[2].samples) > 0.1
    assert peer.ledger.span == peer.ledger.heard


class LaterVoice(Voice):
    """A voice whose sender's clock stands at `at_s` when it begins."""

    def __init__(self, samples: Samples, at_s: float) -> None:
        super().__init__(samples)
        self._at = int(at_s * RATE)

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        assert frame.pts is not None
        frame.pts += self._at
        return frame


async def test_a_voice_that_stops_and_starts_keeps_its_clock() -> None:
    first, second = tone(1.0, RATE, level=0.5), spoken("please", rate=RATE)
    voice = Voice(first)
    page = Page(voice)
    async with peer_of(page) as peer, listening(peer) as chunks:
        await voice.is_done.wait()
        started = time.monotonic() - 1.0
        page.sender.replaceTrack(None)
        await asyncio.sleep(0.4)  # the pause is what is tested
        restarted = time.monotonic()
        voice = LaterVoice(second, restarted - started)
        page.sender.replaceTrack(voice)
        await voice.is_done.wait()
        await until(lambda: peer.ledger.heard > (len(first) + len(second)) / 3)

    assert_in_order(chunks)
    assert peer.ledger.span == chunks[-1].end_sample
    assert peer.ledger.silence == pytest.approx(0.4 * SAMPLE_RATE, abs=0.1 * SAMPLE_RATE)
    sound = timeline(chunks)
    second_at_s = _at_s(sound, at_16k(second), after_s=1.1)
    assert second_at_s - _at_s(sound, at_16k(first)) == pytest.approx(restarted - started, abs=0.15)


async def test_a_sender_whose_clock_stands_while_it_pauses_goes_on_in_one_piece() -> None:
    """As aiortc's own does: nothing tells its pause from a network that stalled."""
    first, second = tone(1.0, RATE, level=0.5), spoken("please", rate=RATE)
    voice = Voice(first)
    page = Page(voice)
    async with peer_of(page) as peer, listening(peer) as chunks:
        await voice.is_done.wait()
        page.sender.replaceTrack(None)
        await asyncio.sleep(0.4)
        voice = Voice(second)
        page.sender.replaceTrack(voice)
        await voice.is_done.wait()
        await until(lambda: peer.ledger.heard > (len(first) + len(second)) / 3)

    assert_in_order(chunks)
    assert peer.ledger.span == chunks[-1].end_sample
    assert all(chunk.jump is None for chunk in chunks)


def _at_s(sound: Samples, wanted: Samples, *, after_s: float = 0.0) -> float:
    """Where in a sound the wanted one begins."""
    skipped = int(after_s * SAMPLE_RATE)
    rest = sound[skipped:].astype(np.float64)
    found = int(np.argmax(np.correlate(rest, wanted.astype(np.float64), "valid")))
    return (skipped + found) / SAMPLE_RATE


async def test_what_waits_behind_a_lost_packet_comes_without_another_packet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Page(Voice(tone(30.0, RATE)))
    dtls = page.sender.transport
    carry, voice_packets = dtls._send_rtp, 0

    async def lossy(data: bytes) -> None:
        nonlocal voice_packets
        voice_packets += 1
        # one is lost, the next arrives, and then there is nothing more
        if voice_packets < 20 or voice_packets == 21:
            await carry(data)

    monkeypatch.setattr(dtls, "_send_rtp", lossy)
    async with peer_of(page) as peer:
        await until(lambda: peer.packets_lost == 1)


async def test_a_peer_that_hears_nothing_hands_on_what_it_holds() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await until(lambda: peer.ledger.heard > 0)
        peer.pause(time.monotonic(), 60.0)
        assert not peer.feed.is_ended
        page.sender.replaceTrack(None)
        async with asyncio.timeout(15):
            while (chunk := await _next_or_pause(peer)) is not None:
                last = chunk

    # the rest of a chunk came too, and nothing was lost of it
    assert peer.ledger.span == peer.ledger.heard == last.end_sample


async def test_a_goodbye_hands_on_what_is_held_and_rouses_the_reader() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await until(lambda: peer.ledger.heard > 0)
        page.sender.replaceTrack(None)
        await asyncio.sleep(0.1)  # what is on its way comes

        await page.sender.transport._send_rtp(bytes(RtcpByePacket([page.sender._ssrc])))

        async with asyncio.timeout(20):
            while (chunk := await peer.feed.get()) is not None:
                last = chunk
        assert peer.ledger.span == peer.ledger.heard == last.end_sample
        assert peer.state == "connected"

        # who comes back is heard
        page.sender.replaceTrack(Voice(tone(30.0, RATE)))
        async with asyncio.timeout(20):
            following = await peer.feed.get()
        assert following is not None
        assert following.start_sample >= last.end_sample


async def _next_or_pause(peer: Peer) -> PcmChunk | None:
    """The next chunk; None once nothing came for 0.3 s."""
    while not len(peer.feed):
        await asyncio.sleep(0.05)
        peer.pause(time.monotonic(), 0.3)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                return await peer.feed.get()
    return await peer.feed.get()


async def test_no_thread_decodes_what_a_page_says() -> None:
    async with peer_of(Page(Voice(tone(30.0, RATE)))) as peer:
        await until(lambda: peer.ledger.heard > 0)

        assert not any("decoder" in thread.name for thread in threading.enumerate())


async def test_a_page_that_closes_is_lost_and_its_feed_ends() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await until(lambda: peer.ledger.heard > 0)

        await page.connection.close()

        await wait_for(peer, PeerEvent.LOST)
        assert peer.feed.is_ended
        assert peer.ledger.span == [chunk async for chunk in peer.feed][-1].end_sample


async def test_a_page_that_vanishes_without_a_word_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.05)
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CHANNEL_OPEN)
        await until(lambda: peer.ledger.heard > 0)

        page.vanish(monkeypatch)

        await wait_for(peer, PeerEvent.LOST)
        assert peer.feed.is_ended


async def test_a_peer_that_was_closed_hears_nothing_more() -> None:
    page = Page(Voice(tone(30.0, RATE)))
    async with peer_of(page) as peer:
        await until(lambda: peer.ledger.heard > 0)
        again = await page.offer()

        await peer.close()

        assert peer.state == "closed"
        assert peer.feed.is_ended
        assert peer.events.is_ended
        assert PeerEvent.LOST not in [event async for event in peer.events]
        assert peer.send("please", is_final=True) is Sent.NO_CHANNEL
        with pytest.raises(RemoteMediaError):
            await peer.answer(again)


def count_closes(monkeypatch: pytest.MonkeyPatch, page: Page) -> list[RTCPeerConnection]:
    """The connections that are closed from now on, but the page's own."""
    closed: list[RTCPeerConnection] = []
    close = RTCPeerConnection.close

    async def counted(connection: RTCPeerConnection) -> None:
        if connection is not page.connection:
            closed.append(connection)
        await close(connection)

    monkeypatch.setattr(RTCPeerConnection, "close", counted)
    return closed


async def test_a_peer_that_is_closed_at_once_and_again_closes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)
        closed = count_closes(monkeypatch, page)

        await asyncio.gather(*(peer.close() for _ in range(5)))
        await peer.close()

        assert len(closed) == 1
        assert peer.state == "closed"


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 20])
async def test_a_close_that_is_cancelled_midway_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    page = Page()
    async with peer_of(page) as peer:
        await wait_for(peer, PeerEvent.CONNECTED)
        closed = count_closes(monkeypatch, page)
        closing = asyncio.create_task(peer.close())
        for _ in range(turns):
            await asyncio.sleep(0)

        closing.cancel()
        await asyncio.wait({closing})
        await peer.close()

        assert peer.state == "closed"
        assert len(closed) == 1


@pytest.mark.parametrize("is_closed", [True, False])
async def test_what_connecting_meets_of_a_closed_connection_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    page, peer = Page(), Peer()
    go_on, unseen = asyncio.Event(), list[object]()

    async def connecting(connection: RTCPeerConnection) -> None:
        if connection is not page.connection:
            await go_on.wait()
            raise InvalidStateError("RTCIceTransport is closed")

    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: unseen.append(context["exception"]))
    monkeypatch.setattr(RTCPeerConnection, "_RTCPeerConnection__connect", connecting)
    try:
        await peer.answer(await page.offer())
        loop.call_soon(go_on.set)
        if not is_closed:
            await until(lambda: bool(unseen))
    finally:
        await peer.close()
        await page.connection.close()
        loop.set_exception_handler(handler)

    assert bool(unseen) is not is_closed


async def test_a_connection_that_fails_to_close_takes_nobody_along(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(_: RTCPeerConnection) -> None:
        raise AttributeError("as aiortc does with half of a connection")

    peer = Peer()
    monkeypatch.setattr(RTCPeerConnection, "close", failing)

    await peer.close()
    await peer.close()

    assert peer.feed.is_ended
    assert peer.events.is_ended
    assert [record.message for record in logged(caplog)] == ["a peer did not close cleanly"]


async def test_a_peer_without_an_offer_closes() -> None:
    peer = Peer()

    await peer.close()

    assert peer.state == "closed"
    assert peer.ledger == Ledger()
    assert peer.packets_lost == 0


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8])
async def test_an_answer_that_is_cancelled_leaves_nothing(turns: int) -> None:
    page, peer = Page(), Peer()
    try:
        answering = asyncio.create_task(peer.answer(await page.offer()))
        for _ in range(turns):
            await asyncio.sleep(0)
        answering.cancel()
        await asyncio.wait({answering})
    finally:
        await page.connection.close()
        await peer.close()


@pytest.mark.parametrize("mid", ["0", None])
async def test_a_trickled_candidate_connects_the_peer(mid: str | None) -> None:
    page, peer = Page(), Peer()
    try:
        offer = await page.offer()
        lines = offer.split("\r\n")
        (candidate, *_) = [line for line in lines if line.startswith("a=candidate:")]
        bare = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of"))]
        await page.take(await peer.answer("\r\n".join(bare)))

        await peer.add_candidate(candidate.removeprefix("a="), mid)
        await peer.add_candidate("", mid)

        await wait_for(peer, PeerEvent.CONNECTED)
    finally:
        await page.connection.close()
        await peer.close()


@pytest.mark.parametrize(
    "candidate",
    [
        "nonsense",
        "candidate:",
        "candidate:1 1 udp",
        "candidate:1 one udp 2 127.0.0.1 3 typ host",
        "candidate:1 1 udp 2 127.0.0.1 port typ host",
        "candidate:1 1 udp 2 not-an-address 9 typ host",
        "candidate:1 1 udp 2 127.0.0.1 99999 typ host",
        "candidate:1 1 udp 2 127.0.0.1 -1 typ host",
        "candidate:1 1 udp 99999999999999999999 127.0.0.1 9 typ host",
        "candidate:1 256 udp 2 127.0.0.1 9 typ host",
        "candidate:1 1 tcp 2 127.0.0.1 9 typ host tcptype active",
        "candidate:1 1 udp 2 ::1 9 typ host",
        "candidate:1 1 udp 2 127.0.0.1 9 typ",
        "candidate:1 1 udp 2 127.0.0.1 9 host typ srflx raddr",
        "\x00" * 100,
        "candidate:" + "9 " * 10_000,
    ],
)
async def test_a_bad_candidate_is_refused_or_passed_over(candidate: str) -> None:
    page = Page()
    async with peer_of(page) as peer:
        for mid in ("0", None, "nowhere"):
            with contextlib.suppress(RemoteMediaError):
                await peer.add_candidate(candidate, mid)

        await wait_for(peer, PeerEvent.CONNECTED)


async def test_a_candidate_that_is_none_is_refused() -> None:
    async with peer_of(Page()) as peer:
        with pytest.raises(RemoteMediaError) as refused:
            await peer.add_candidate("candidate:1 1 udp", "0")

    assert refused.value.code == "bad_candidate"
    assert not refused.value.retryable


def test_the_label_of_the_channel_is_on_the_wire() -> None:
    assert CAPTIONS_LABEL == "captions"


async def test_a_track_that_fails_at_its_end_lets_its_peer_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with peer_of(Page(Voice(tone(0.1, RATE)))) as peer:

        def fail(_now: float) -> None:
            raise RuntimeError("at the end")

        monkeypatch.setattr(peer._track, "end", fail)
        peer.end_audio()
        assert peer.feed.is_ended
        await peer.close()
        assert peer.state == "closed"


async def test_a_certificate_that_was_not_signalled_is_not_spoken_to() -> None:
    """Someone on the way who ends DTLS in the page's place."""
    page, peer = Page(Voice(tone(1.0, RATE))), Peer()
    try:
        offer = await page.offer()
        honest = re.search(r"a=fingerprint:sha-256 (..)", offer)
        assert honest is not None
        forged = f"a=fingerprint:sha-256 {int(honest[1], 16) ^ 1:02X}"
        await page.take(await peer.answer(offer.replace(honest[0], forged)))
        before = await wait_for(peer, PeerEvent.LOST)
        assert PeerEvent.CONNECTED not in before
        assert peer.received_at == 0.0
    finally:
        await page.connection.close()
        await peer.close()

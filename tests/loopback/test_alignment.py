"""What a real sender plays comes out at its place on the sample clock, from start to end."""

import struct
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from media.pcm import SAMPLE_RATE
from media.track import Ledger, RtpPacket, Track
from soak.speech import load_speech
from tests.clients import Voice
from tests.media.pages import Page, listening, on_loopback, peer_of, until
from tests.media.rtp import MASK32, assert_in_order, correlation, timeline
from tests.speech import Samples, at_16k, chirp, pcm, silence

RATE = 48_000
WITHIN_MS = 20.0
# What is sent before the other end has its keys is not heard.
LEAD_S, CHIRP_S, SPEECH_S = 0.8, 0.5, 4.0


@pytest_asyncio.fixture(autouse=True)
async def loopback() -> AsyncIterator[None]:
    with on_loopback():
        yield


def played() -> tuple[Samples, dict[str, tuple[float, float]]]:
    """The sound, and where its parts begin and end, in seconds."""
    rising = chirp(CHIRP_S, RATE)
    speech = pcm(load_speech()[: int(SPEECH_S * RATE)])
    first, last = LEAD_S + CHIRP_S, LEAD_S + CHIRP_S + SPEECH_S
    sound = np.concatenate([silence(LEAD_S, RATE), rising, speech, rising])
    half = first + SPEECH_S / 2
    return sound, {
        "first chirp": (LEAD_S, first),
        "first half of the speech": (first, half),
        "second half of the speech": (half, last),
        "last chirp": (last, last + CHIRP_S),
    }


class Clock:
    """The timestamps of the first packet that the sender sent and of the first one heard."""

    def __init__(self, page: Page, undone: pytest.MonkeyPatch) -> None:
        self.sent: int | None = None
        self.heard: int | None = None
        dtls = page.sender.transport
        carry, receive = dtls._send_rtp, Track.receive

        async def note_sent(data: bytes) -> None:
            if self.sent is None and not 192 <= data[1] <= 208:
                (self.sent,) = struct.unpack_from("!I", data, 4)
            await carry(data)

        def note_heard(track: Track, packet: RtpPacket, now: float) -> None:
            if self.heard is None:
                self.heard = packet.timestamp
            receive(track, packet, now)

        undone.setattr(dtls, "_send_rtp", note_sent)
        undone.setattr(Track, "receive", note_heard)

    @property
    def missed_s(self) -> float:
        """How much had been played when the first sample was heard."""
        assert self.sent is not None
        assert self.heard is not None
        return ((self.heard - self.sent) & MASK32) / RATE


async def test_chirp_and_speech_of_a_real_sender_stand_at_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound, parts = played()
    voice = Voice(sound)
    page = Page(voice)
    clock = Clock(page, monkeypatch)
    async with peer_of(page) as peer, listening(peer) as chunks:
        await voice.is_done.wait()
        wanted = round((len(sound) / RATE - clock.missed_s) * SAMPLE_RATE)
        await until(lambda: peer.ledger.span > wanted + SAMPLE_RATE // 10)

    assert_in_order(chunks)
    assert chunks[0].start_sample == 0
    assert peer.ledger == Ledger(heard=chunks[-1].end_sample)
    assert clock.missed_s < LEAD_S
    heard, said = timeline(chunks), at_16k(sound)
    for name, (begin_s, end_s) in parts.items():
        begin, length = round(begin_s * SAMPLE_RATE), round((end_s - begin_s) * SAMPLE_RATE)
        at = begin - round(clock.missed_s * SAMPLE_RATE)
        alike, late_ms = correlation(
            heard[at : at + length], said[begin : begin + length], within_ms=200
        )
        assert abs(late_ms) < WITHIN_MS, f"the {name} is {late_ms:.1f} ms late"
        assert alike > 0.8, f"the {name}: {alike:.2f}"

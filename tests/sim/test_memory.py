"""What runs for every packet and chunk holds no more after minutes than after seconds.

`limit_leaks` counts what was allocated in the test and is there at its end; what is made once is
made by the fixtures.
"""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from media.feed import Feed
from media.pcm import PcmChunk
from media.track import RtpPacket, Track
from server.outbox import Outbox
from tests.media.rtp import FRAME_S, NAMES, encoded, packets
from tests.sim.test_stream import LevelVad
from tests.speech import Samples, silence, tone
from tests.transcriber.builders import hypothesis
from transcriber.stream import Hearing, SpeakerStream
from transcriber.types import SAMPLE_RATE, Hypothesis, StreamId, Window

MINUTE = 60.0


@pytest.fixture
def minute() -> list[RtpPacket]:
    return packets(encoded(tone(1.0, 48_000)) * 60)


class Sink:
    """A track whose chunks are read and forgotten."""

    def __init__(self) -> None:
        self.feed: Feed[PcmChunk] = Feed(20)
        self.track = Track(self.feed, NAMES.get, None)
        self.chunks = 0

    async def take(self, sent: list[RtpPacket]) -> None:
        for number, packet in enumerate(sent):
            self.track.receive(packet, number * FRAME_S)
            while len(self.feed):
                await self.feed.get()
                self.chunks += 1


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.mark.limit_leaks("20 KB")
async def test_a_minute_of_packets_leaves_nothing(sink: Sink, minute: list[RtpPacket]) -> None:
    await sink.take(minute)
    # not `approx`: what it asks of a class for the first time is remembered by all of Python
    assert 595 <= sink.chunks <= 605


class PromptEngine:
    """Hears one word in every window, at once."""

    cadence_s = 0.0

    def __init__(self) -> None:
        self.windows = 0
        self._receive: Callable[[Hypothesis], None] | None = None

    def attach(self, stream: StreamId, receive: Callable[[Hypothesis], None]) -> None:
        self._receive = receive

    def detach(self, stream: StreamId) -> None:
        self._receive = None

    def can_take_interim(self, stream: StreamId) -> bool:
        return True

    def offer(self, window: Window) -> bool:
        self.windows += 1
        assert self._receive is not None
        self._receive(hypothesis(window, "amber"))
        return True


class Speech:
    """Seconds of sound and pause by turns, in chunks, for as long as one likes."""

    def __init__(self) -> None:
        self.said = 0
        self.engine = PromptEngine()
        self._at = 0
        self.stream = SpeakerStream(
            StreamId("ada"),
            self.engine,
            LevelVad(),
            Hearing("en"),
            self._note,
            lambda: self._at / SAMPLE_RATE,
        )
        self._turn: Samples = np.concatenate([tone(2.0), silence(1.0)])

    def _note(self, _said: object) -> None:
        self.said += 1

    def go_on(self, seconds: float) -> None:
        step = SAMPLE_RATE // 10
        for _ in range(int(seconds * 10)):
            at = self._at % len(self._turn)
            self.stream.push(self._at, self._turn[at : at + step], self._at / SAMPLE_RATE, None)
            self._at += step


@pytest.fixture
def speech() -> Speech:
    speech = Speech()
    speech.go_on(MINUTE)
    return speech


@pytest.mark.limit_leaks("20 KB")
async def test_minutes_of_speech_leave_nothing_in_a_stream(speech: Speech) -> None:
    said = speech.said
    speech.go_on(3 * MINUTE)
    assert speech.said > said + 60


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.mark.slow
@pytest.mark.limit_leaks("20 KB")
async def test_captions_that_are_read_leave_nothing_in_an_outbox(outbox: Outbox) -> None:
    for number in range(10_000):
        outbox.put(f"caption {number}", replaces=f"p1-{number // 5}", is_final=False)
        async with asyncio.timeout(20):
            assert await anext(outbox) == f"caption {number}"

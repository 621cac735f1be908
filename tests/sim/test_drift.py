"""Ten minutes of a sender whose clock is 100 ppm off: what was said stands where the sender's
own clock, told by the timestamps, has it; nothing is put in or taken out.

Time is in the test's hand. Half a minute of sound is encoded once and sent again and again.
"""

import functools
import random

import numpy as np
import pytest

from media.pcm import SAMPLE_RATE, PcmChunk
from media.timeline import Jump
from media.track import Ledger, RtpPacket
from soak.speech import load_speech
from tests.media.rtp import (
    MASK32,
    NAMES,
    Arrival,
    Line,
    assert_accounted,
    assert_in_order,
    correlation,
    encoded,
    encoded_wideband,
)
from tests.speech import Samples, at_16k, chirp, pcm, resampled, silence

MINUTES = 10
RATE = 48_000
ROUND_S, ROUNDS = 12, MINUTES * 60 // 12
CHIRP_S, SPEECH_S, PAUSE_S = 1.0, 8.0, 3.0
OPUS = next(number for number, name in NAMES.items() if name == "opus")
WITHIN_MS = 20.0
JITTER_S = 0.03
PPM = [100, -100, 0]


@functools.cache
def said() -> Samples:
    """A chirp, speech, and a pause, at 16 kHz."""
    speech = at_16k(pcm(load_speech()))
    parts = [
        chirp(CHIRP_S),
        speech[: int(SPEECH_S * SAMPLE_RATE)],
        silence(PAUSE_S),
    ]
    return np.concatenate(parts)


@functools.cache
def payloads(packet_ms: int) -> tuple[bytes, ...]:
    """As a browser sends it: 20 ms at 48 kHz by itself, 60 ms wideband when it was asked."""
    if packet_ms == 20:
        return tuple(encoded(resampled(said(), SAMPLE_RATE, RATE)))
    return tuple(encoded_wideband(said(), packet_ms))


def sent(packet_ms: int, ppm: int, *, dtx: bool) -> list[Arrival]:
    """Ten minutes of packets. The timestamps are the sender's clock, `at` is ours; with DTX
    the pauses are not sent."""
    chance = random.Random(ppm)
    per_round = ROUND_S * 1000 // packet_ms
    spoken = round((CHIRP_S + SPEECH_S) * 1000 / packet_ms)
    arrivals: list[Arrival] = []
    for n in range(ROUNDS * per_round):
        if dtx and n % per_round >= spoken:
            continue
        at_sender_s = (n + 1) * packet_ms / 1000
        at = at_sender_s * (1 - ppm * 1e-6) + chance.random() * JITTER_S
        number = len(arrivals)
        packet = RtpPacket(
            ssrc=1,
            payload_type=OPUS,
            sequence_number=(65_000 + number) & 0xFFFF,
            timestamp=(2**32 - 20 * RATE + n * packet_ms * RATE // 1000) & MASK32,
            payload=payloads(packet_ms)[n % per_round],
        )
        arrivals.append(Arrival(at, number, packet))
    return arrivals


async def hear(arrivals: list[Arrival]) -> tuple[Line, list[PcmChunk]]:
    line = Line()
    await line.carry(arrivals)
    chunks = await line.end()
    assert_in_order(chunks)
    assert_accounted(line)
    assert line.track.packets_lost == line.track.packets_late == line.track.undecodable == 0
    return line, chunks


def assert_in_place(chunks: list[PcmChunk]) -> None:
    """The chirp and the speech of every round stand where the sender's clock has them."""
    heard = np.zeros(ROUNDS * ROUND_S * SAMPLE_RATE + SAMPLE_RATE, np.int16)
    for chunk in chunks:
        heard[chunk.start_sample : chunk.end_sample] = chunk.samples
    for number in range(ROUNDS):
        at_s = number * ROUND_S
        for name, begin_s, length_s in (("chirp", 0.0, CHIRP_S), ("speech", CHIRP_S, SPEECH_S)):
            begin, length = int(begin_s * SAMPLE_RATE), int(length_s * SAMPLE_RATE)
            want = said()[begin : begin + length]
            start = int(at_s * SAMPLE_RATE) + begin
            how_alike, late_ms = correlation(heard[start : start + length], want, within_ms=200)
            assert abs(late_ms) < WITHIN_MS, f"{name} of {at_s} s is {late_ms:.1f} ms late"
            assert how_alike > 0.8, f"{name} of {at_s} s: {how_alike:.2f}"


@pytest.mark.parametrize("ppm", PPM)
@pytest.mark.parametrize("packet_ms", [20, 60])
async def test_a_clock_that_drifts_moves_nothing_in_ten_minutes(packet_ms: int, ppm: int) -> None:
    line, chunks = await hear(sent(packet_ms, ppm, dtx=False))

    assert_in_place(chunks)
    whole = MINUTES * 60 * SAMPLE_RATE
    assert line.ledger == Ledger(heard=whole)
    assert chunks[0].start_sample == 0
    assert chunks[-1].end_sample == whole
    assert all(chunk.jump is None for chunk in chunks)


@pytest.mark.parametrize("ppm", PPM)
@pytest.mark.parametrize("packet_ms", [20, 60])
async def test_pauses_are_as_long_as_the_drifting_clock_says(packet_ms: int, ppm: int) -> None:
    line, chunks = await hear(sent(packet_ms, ppm, dtx=True))

    assert_in_place(chunks)
    spoken = round((CHIRP_S + SPEECH_S) * SAMPLE_RATE)
    pause = round(PAUSE_S * SAMPLE_RATE)
    assert line.ledger == Ledger(heard=ROUNDS * spoken, silence=(ROUNDS - 1) * pause)
    assert [chunk.jump for chunk in chunks if chunk.jump] == [Jump.SILENCE] * (ROUNDS - 1)

"""Ten seconds of speech over networks that lose, turn round, hold back and go silent.

Time and the network are in the test's hand: nothing here waits.
"""

import functools
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from media.pcm import CHUNK_SAMPLES, SAMPLE_RATE, PcmChunk
from media.peer import FEED_CHUNKS
from media.timeline import Jump
from media.track import Ledger, RtpPacket
from tests.media.rtp import (
    FRAME_S,
    KINDS,
    Arrival,
    Line,
    assert_accounted,
    assert_in_order,
    correlation,
    encoded,
    encoded_wideband,
    moved,
    on_time,
    packets,
    timeline,
)
from tests.speech import Samples, at_16k, level, silence, spoken

LONG_SENTENCE = (
    "please open the meeting and read the agenda for today then we hear what everyone did last"
    " week and what they plan to do until the next one so that nobody waits for anybody else"
    " in the end"
)
SECONDS = 10
RATE = KINDS["opus"].rate
FRAME_SAMPLES = SAMPLE_RATE // 50
# hold of the reorder buffer, a chunk, a frame, and what the resampler keeps back
LATENCY_S = 0.08 + 0.1 + 0.02 + 0.05


@functools.cache
def said() -> Samples:
    """What is spoken, at 16 kHz."""
    speech = at_16k(spoken(LONG_SENTENCE, rate=RATE)[: SECONDS * RATE])
    assert len(speech) == SECONDS * SAMPLE_RATE
    return speech


@functools.cache
def _payloads() -> tuple[bytes, ...]:
    return tuple(encoded(spoken(LONG_SENTENCE, rate=RATE)[: SECONDS * RATE]))


def sent() -> list[RtpPacket]:
    return packets(_payloads(), sequence=65_300, timestamp=2**32 - 3 * RATE)


def moments(at_s: float, until_s: float) -> range:
    """The packets spoken in a part of the sentence."""
    return range(round(at_s / FRAME_S), round(until_s / FRAME_S))


async def hear(arrivals: list[Arrival]) -> tuple[Line, list[PcmChunk]]:
    line = Line()
    await line.carry(arrivals)
    chunks = await line.end()
    assert_in_order(chunks)
    assert_accounted(line)
    return line, chunks


def assert_in_place(
    chunks: list[PcmChunk],
    *,
    spoken_at: Callable[[float], float] = lambda at_s: at_s,
    seconds: int = SECONDS,
    alike: float = 0.9,
) -> None:
    """Each second that was spoken stands where it was spoken."""
    heard = timeline(chunks)
    for second in range(seconds):
        want = said()[second * SAMPLE_RATE : (second + 1) * SAMPLE_RATE]
        at = round(spoken_at(second) * SAMPLE_RATE)
        got = heard[at : at + SAMPLE_RATE]
        if level(want) < 0.02 or not got.any():
            continue
        how_alike, delay_ms = correlation(got, want, within_ms=40)
        assert how_alike > alike, f"second {second}: {how_alike:.2f}"
        # the encoder's own lookahead is 6.5 ms
        assert 0 <= delay_ms <= 13, f"second {second}: {delay_ms} ms"


def assert_no_stall(chunks: list[PcmChunk], *, jitter_s: float = 0.0) -> None:
    """No chunk came later than the buffers on its way explain.

    The end of a piece comes with the start of the next: only then is it known to end.
    """
    for chunk, after in pairwise(chunks):
        if after.jump is None and len(after.samples) == CHUNK_SAMPLES:
            assert chunk.received_at - chunk.start_sample / SAMPLE_RATE <= LATENCY_S + jitter_s


async def test_a_good_network_changes_nothing() -> None:
    line, chunks = await hear(on_time(sent()))

    assert_in_place(chunks)
    assert_no_stall(chunks)
    assert line.ledger == Ledger(heard=chunks[-1].end_sample)
    assert chunks[-1].end_sample == pytest.approx(SECONDS * SAMPLE_RATE, abs=2 * FRAME_SAMPLES)


@pytest.mark.parametrize("seed", range(3))
async def test_speech_goes_on_over_30_percent_loss_and_reordering(seed: int) -> None:
    chance = random.Random(seed)
    jitter_s = 0.07
    first, *rest = on_time(sent())
    arrivals = [
        Arrival(arrival.at + chance.uniform(0, jitter_s), arrival.order, arrival.packet)
        for arrival in rest
        if chance.random() > 0.3
    ]

    line, chunks = await hear([first, *arrivals])

    assert_no_stall(chunks, jitter_s=jitter_s)
    assert_in_place(chunks, alike=0.5)
    ledger = line.ledger
    assert 0.6 < ledger.heard / ledger.span < 0.75
    assert ledger.silence == 0
    assert ledger.overload == 0
    # the last packets may be lost too
    assert ledger.span == pytest.approx(SECONDS * SAMPLE_RATE, abs=6 * FRAME_SAMPLES)


async def test_jitter_within_the_hold_loses_nothing() -> None:
    chance = random.Random(7)
    arrivals = [
        Arrival(arrival.at + chance.uniform(0, 0.039), arrival.order, arrival.packet)
        for arrival in on_time(sent())
    ]
    order = [arrival.order for arrival in sorted(arrivals)]
    assert order != sorted(order)

    line, chunks = await hear(arrivals)

    assert line.ledger == Ledger(heard=chunks[-1].end_sample)
    assert_in_place(chunks)


async def test_single_losses_cost_a_frame_each_and_no_more() -> None:
    arrivals = [arrival for arrival in on_time(sent()) if arrival.order % 10 != 5]

    line, chunks = await hear(arrivals)

    assert line.ledger.concealed == pytest.approx(50 * FRAME_SAMPLES, abs=FRAME_SAMPLES)
    assert line.ledger.network == 0
    assert all(chunk.jump is None for chunk in chunks)
    assert_no_stall(chunks)
    assert_in_place(chunks, alike=0.8)


async def test_a_burst_loss_of_500_ms_is_one_jump() -> None:
    lost = moments(4.0, 4.5)

    line, chunks = await hear([a for a in on_time(sent()) if a.order not in lost])

    (jump,) = [chunk for chunk in chunks if chunk.jump]
    assert jump.jump is Jump.NETWORK
    before = chunks[chunks.index(jump) - 1]
    assert jump.start_sample - before.end_sample == pytest.approx(0.5 * SAMPLE_RATE, abs=2)
    assert line.ledger.network == jump.start_sample - before.end_sample
    assert line.ledger.concealed == line.ledger.silence == 0
    assert line.track.packets_lost == len(lost)
    assert_no_stall(chunks)
    assert_in_place(chunks, alike=0.5)


@pytest.mark.parametrize("comfort_ms", [None, 400])
async def test_five_seconds_of_dtx_are_silence(comfort_ms: int | None) -> None:
    """The sender says nothing, but perhaps a frame of comfort noise now and then."""
    pause_s, at_s = 5.0, 6.0
    first, rest = sent()[: len(moments(0, at_s))], sent()[len(moments(0, at_s)) :]
    quiet = encoded(silence(1.0, RATE))[-1]
    comfort = []
    if comfort_ms is not None:
        for n, ms in enumerate(range(comfort_ms, int(pause_s * 1000), comfort_ms)):
            packet = moved(rest[0], timestamp=ms * RATE // 1000, sequence=n)
            comfort.append(
                Arrival(
                    at_s + ms / 1000,
                    0,
                    RtpPacket(
                        packet.ssrc,
                        packet.payload_type,
                        packet.sequence_number,
                        packet.timestamp,
                        quiet,
                    ),
                )
            )
    rest = [moved(p, timestamp=int(pause_s * RATE), sequence=len(comfort)) for p in rest]

    line, chunks = await hear([*on_time(first), *comfort, *on_time(rest, at=at_s + pause_s)])

    comforted = len(comfort) * FRAME_SAMPLES
    assert line.ledger.silence == pytest.approx(
        pause_s * SAMPLE_RATE - comforted, abs=2 * (len(comfort) + 1)
    )
    assert line.ledger.network == line.ledger.concealed == 0
    assert {chunk.jump for chunk in chunks} == {None, Jump.SILENCE}
    assert_in_place(chunks, spoken_at=lambda at: at if at < at_s else at + pause_s, alike=0.8)


@pytest.mark.parametrize("jump", [2**31, -(2**31), 2**31 - 1, 2 * RATE, -2 * RATE])
async def test_a_timestamp_that_jumps_moves_nothing(jump: int) -> None:
    at = len(moments(0, 5.0))
    jumping = sent()[:at] + [moved(packet, timestamp=jump) for packet in sent()[at:]]

    line, chunks = await hear(on_time(jumping))

    assert line.ledger == Ledger(heard=chunks[-1].end_sample)
    assert all(chunk.jump is None for chunk in chunks)
    assert_no_stall(chunks)
    assert_in_place(chunks)


@pytest.mark.parametrize("jump", [2**31, -(2**31)])
async def test_a_jump_there_and_back_moves_nothing(jump: int) -> None:
    there, back = len(moments(0, 3.0)), len(moments(0, 7.0))
    jumping = [
        moved(packet, timestamp=jump if there <= n < back else 0) for n, packet in enumerate(sent())
    ]

    _, chunks = await hear(on_time(jumping))

    assert_in_place(chunks)


async def test_a_sender_that_restarts_its_clock_after_a_pause_keeps_the_time() -> None:
    at = len(moments(0, 6.0))
    restarted = [moved(packet, timestamp=2**31) for packet in sent()[at:]]

    line, chunks = await hear(on_time(sent()[:at]) + on_time(restarted, at=9.0))

    assert line.ledger.silence == pytest.approx(3 * SAMPLE_RATE, abs=2)
    assert_in_place(chunks, spoken_at=lambda at: at if at < 6 else at + 3, alike=0.8)


async def test_a_late_burst_after_a_stall_is_heard_in_its_place() -> None:
    """The network holds everything back for 3 s, then brings it at once."""
    stalled = moments(3.0, 6.0)
    arrivals = [
        Arrival(6.0 if arrival.order in stalled else arrival.at, arrival.order, arrival.packet)
        for arrival in on_time(sent())
    ]

    line, chunks = await hear(arrivals)

    assert line.ledger == Ledger(heard=chunks[-1].end_sample)
    assert_in_place(chunks)
    # and the delay is gone with the burst
    assert_no_stall([chunk for chunk in chunks if chunk.start_sample >= 6.0 * SAMPLE_RATE])


async def test_a_stall_that_loses_its_first_half_is_one_jump() -> None:
    lost, stalled = moments(3.0, 4.5), moments(4.5, 6.0)
    arrivals = [
        Arrival(6.0 if arrival.order in stalled else arrival.at, arrival.order, arrival.packet)
        for arrival in on_time(sent())
        if arrival.order not in lost
    ]

    line, chunks = await hear(arrivals)

    assert [chunk.jump for chunk in chunks if chunk.jump] == [Jump.NETWORK]
    assert line.ledger.network == pytest.approx(1.5 * SAMPLE_RATE, abs=2)
    assert_in_place(
        [c for c in chunks if not 2.9 * SAMPLE_RATE <= c.start_sample < 5 * SAMPLE_RATE], alike=0.85
    )


async def test_a_burst_beyond_the_feed_is_overload_and_the_newest_stays() -> None:
    """Nobody reads while 3 s of audio come at once."""
    line = Line(bound=FEED_CHUNKS)
    for arrival in on_time(sent()[: len(moments(0, 3.0))]):
        line.track.receive(arrival.packet, 3.0)

    chunks = await line.end()

    kept = chunks[-1].end_sample - chunks[0].start_sample
    assert len(chunks) == FEED_CHUNKS
    assert line.ledger == Ledger(heard=kept, overload=chunks[0].start_sample)
    assert line.feed.dropped == 30 - FEED_CHUNKS


@functools.cache
def _asked_payloads() -> tuple[bytes, ...]:
    """A minute as a browser sends it that was asked: 60 ms a packet, wideband, FEC."""
    return tuple(encoded_wideband(np.tile(said(), 6), 60))


@pytest.mark.parametrize("seed", range(3))
async def test_of_10_percent_random_loss_hardly_anything_is_missing(seed: int) -> None:
    chance = random.Random(seed)
    sent = packets(_asked_payloads(), packet_ms=60, sequence=65_000)
    arrivals = [a for a in on_time(sent, every_s=0.06) if a.order == 0 or chance.random() > 0.1]
    assert len(arrivals) == pytest.approx(0.9 * len(sent), abs=30)

    line, chunks = await hear(arrivals)

    ledger = line.ledger
    assert ledger.span == pytest.approx(60 * SAMPLE_RATE, abs=3 * 960)
    assert ledger.network / ledger.span <= 0.005
    assert ledger.concealed / ledger.span == pytest.approx(0.1, abs=0.03)
    assert ledger.silence == ledger.overload == 0
    # nine of ten lost packets are told by the next one
    assert line.track.restored / ledger.concealed > 0.8
    heard, whole = timeline(chunks), np.tile(said(), 6)[: chunks[-1].end_sample]
    alike, delay_ms = correlation(heard, whole)
    assert alike > 0.85
    assert 0 <= delay_ms <= 13


async def test_one_lost_packet_leaves_no_latency_behind() -> None:
    lost = 250
    line, chunks = await hear([a for a in on_time(sent()) if a.order != lost])

    assert line.ledger.concealed == FRAME_SAMPLES
    assert line.ledger.network == line.ledger.silence == 0
    late_s = {
        round(chunk.received_at - chunk.end_sample / SAMPLE_RATE, 3)
        for chunk in chunks[:-1]
        if not chunk.start_sample <= lost * FRAME_SAMPLES < chunk.end_sample
    }
    # a packet comes when it begins: the last of a chunk 20 ms before its end
    assert late_s == {-FRAME_S}
    assert_no_stall(chunks)

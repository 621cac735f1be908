"""`Track`: real packets in, chunks in their places out, and a ledger that adds up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.opus import LibopusDecoder, libopus
from media.pcm import CHUNK_SAMPLES, SAMPLE_RATE
from media.timeline import Jump
from media.track import CODECS, SILENT_LEVEL, Ledger, Origin, RtpPacket
from tests.media.rtp import (
    FRAME_S,
    KINDS,
    UNKNOWN_TYPE,
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
from tests.speech import OPEN_THE_MEETING, Samples, at_16k, level, peak, silence, spoken, tone

FRAME_SAMPLES = SAMPLE_RATE // 50
PCMU_FRAME = KINDS["PCMU"].frame_units


def tone_packets(
    count: int,
    codec: str = "PCMU",
    *,
    ssrc: int = 1,
    sequence: int = 1_000,
    timestamp: int = 50_000,
) -> list[RtpPacket]:
    """A tone, 20 ms a packet."""
    payloads = encoded(tone(count * FRAME_S, KINDS[codec].rate), codec)
    return packets(payloads, codec, ssrc=ssrc, sequence=sequence, timestamp=timestamp)


@pytest.mark.parametrize("codec", list(KINDS))
async def test_speech_comes_out_as_it_was_spoken(codec: str) -> None:
    rate = KINDS[codec].rate
    said = spoken(OPEN_THE_MEETING, rate=rate)
    line = Line()

    await line.carry(on_time(packets(encoded(said, codec), codec)))
    chunks = await line.end()

    alike, delay_ms = correlation(timeline(chunks), at_16k(said, rate))
    assert alike > 0.9
    assert 0 <= delay_ms < 25  # the encoder's lookahead
    assert line.ledger == Ledger(heard=chunks[-1].end_sample)
    assert chunks[-1].end_sample == pytest.approx(len(said) * SAMPLE_RATE / rate, abs=400)
    assert_in_order(chunks)


@pytest.mark.parametrize("codec", list(KINDS))
async def test_audio_is_neither_louder_nor_softer_than_it_was(codec: str) -> None:
    said = tone(1.0, KINDS[codec].rate, level=0.5)
    line = Line()

    await line.carry(on_time(packets(encoded(said, codec), codec)))
    heard = timeline(await line.end())

    assert level(heard) == pytest.approx(level(said), rel=0.05)


async def test_chunks_come_while_the_audio_runs() -> None:
    line = Line()

    await line.carry(on_time(tone_packets(50, "opus")))

    assert [len(chunk.samples) for chunk in line.chunks] == [CHUNK_SAMPLES] * len(line.chunks)
    assert len(line.chunks) == 10
    for n, chunk in enumerate(line.chunks):
        assert chunk.start_sample == n * CHUNK_SAMPLES
        assert chunk.received_at == pytest.approx((n + 1) * 0.1, abs=0.05)


async def test_a_lost_packet_costs_its_own_frame_only() -> None:
    sent = tone_packets(50)
    del sent[20]
    line = Line()

    await line.carry(on_time(sent[:20]) + on_time(sent[20:], at=21 * FRAME_S))
    chunks = await line.end()

    assert line.track.packets_lost == 1
    assert line.ledger == Ledger(heard=49 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)
    heard = timeline(chunks)
    hole = heard[20 * FRAME_SAMPLES + 40 : 21 * FRAME_SAMPLES - 40]
    assert peak(hole) < 0.01
    assert peak(heard[21 * FRAME_SAMPLES + 40 : 22 * FRAME_SAMPLES]) > 0.03
    assert all(chunk.jump is None for chunk in chunks)


async def test_a_reordered_packet_is_heard_in_its_place() -> None:
    sent = tone_packets(50)
    line, straight = Line(), Line()

    await line.carry(on_time([*sent[:20], sent[21], sent[20], *sent[22:]]))
    await straight.carry(on_time(sent))

    # soxr dithers
    assert np.allclose(timeline(await line.end()), timeline(await straight.end()), rtol=0, atol=3)
    assert line.track.packets_lost == 0


async def test_a_late_packet_and_a_duplicate_are_not_heard() -> None:
    sent = tone_packets(50)
    line = Line()

    await line.carry([*on_time(sent), Arrival(0.5, 99, sent[3]), Arrival(0.6, 99, sent[30])])
    chunks = await line.end()

    assert line.track.packets_late == 2
    assert line.ledger == Ledger(heard=chunks[-1].end_sample)


async def test_what_waits_behind_a_hole_comes_when_its_time_is_over() -> None:
    sent = tone_packets(8)
    line = Line()
    await line.carry(on_time([*sent[:4], *sent[5:7]]))

    assert line.track.next_deadline() == pytest.approx(4 * FRAME_S + 0.08)
    line.pass_until(1.0)

    assert line.track.next_deadline() is None
    assert line.ledger == Ledger(heard=4 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)  # one chunk
    assert line.track.packets_lost == 1


async def test_expire_says_when_to_call_again() -> None:
    sent = tone_packets(8)
    line = Line()
    await line.carry(
        [Arrival(0.0, 0, sent[0]), Arrival(0.1, 1, sent[2]), Arrival(0.15, 2, sent[4])]
    )

    assert line.track.expire(0.15) == pytest.approx(0.18)
    assert line.track.expire(0.18) == pytest.approx(0.23)
    assert line.track.expire(0.23) is None


async def test_a_pause_of_the_sender_is_silence() -> None:
    sent = tone_packets(20)
    line = Line()

    after = [moved(packet, timestamp=5 * 8_000) for packet in sent[10:]]
    await line.carry(on_time(sent[:10]) + on_time(after, at=5.2))
    chunks = await line.end()

    assert line.ledger == Ledger(heard=20 * FRAME_SAMPLES, silence=5 * SAMPLE_RATE)
    assert [chunk.jump for chunk in chunks].count(Jump.SILENCE) == 1
    jump = next(chunk for chunk in chunks if chunk.jump)
    assert jump.start_sample == pytest.approx(5.2 * SAMPLE_RATE, abs=2)
    assert_in_order(chunks)


async def test_undecodable_payloads_are_counted_and_survived() -> None:
    sent = tone_packets(60, "opus")
    # a code 3 packet without its frame count, and one with more padding than it is long
    bad = [b"\x03", b"\xff\xff\xff\xff"]
    spoilt = [
        packet._replace(payload=bad[n % 2]) if 20 <= n < 22 else packet
        for n, packet in enumerate(sent)
    ]
    line = Line()

    await line.carry(on_time(spoilt))
    chunks = await line.end()

    assert line.track.undecodable == 2
    assert line.ledger.concealed == 2 * FRAME_SAMPLES
    assert line.ledger.span == chunks[-1].end_sample == pytest.approx(60 * FRAME_SAMPLES, abs=1)


async def test_a_run_of_undecodable_payloads_is_lost_and_no_silence() -> None:
    sent = tone_packets(60, "opus")
    spoilt = [p._replace(payload=b"\x03") if 20 <= n < 30 else p for n, p in enumerate(sent)]
    line = Line()

    await line.carry(on_time(spoilt))
    chunks = await line.end()

    assert line.ledger.network == pytest.approx(10 * FRAME_SAMPLES, abs=1)
    assert line.ledger.silence == 0
    assert [chunk.jump for chunk in chunks if chunk.jump] == [Jump.NETWORK]


async def test_a_loss_right_before_an_undecodable_payload_is_no_silence() -> None:
    sent = tone_packets(60)
    sent[30] = sent[30]._replace(payload_type=UNKNOWN_TYPE)
    line = Line()

    await line.carry([arrival for n, arrival in enumerate(on_time(sent)) if not 20 <= n < 30])
    await line.end()

    assert line.ledger.network == 11 * FRAME_SAMPLES
    assert line.ledger.silence == 0


async def test_a_pause_after_a_loss_is_silence_all_the_same() -> None:
    sent = tone_packets(40)
    del sent[10]
    after = [moved(packet, timestamp=3 * 8_000) for packet in sent[20:]]
    line = Line()

    await line.carry(on_time(sent[:20]) + on_time(after, at=4.0))
    chunks = await line.end()

    assert line.ledger.silence == 3 * SAMPLE_RATE
    assert line.ledger.concealed == FRAME_SAMPLES
    assert [chunk.jump for chunk in chunks if chunk.jump] == [Jump.SILENCE]


@pytest.mark.parametrize("codec", list(KINDS))
async def test_the_overlap_of_a_frame_is_cut(codec: str) -> None:
    sent = tone_packets(40, codec)
    overlap = KINDS[codec].frame_units // 4
    line = Line()

    await line.carry(
        on_time([*sent[:20], *(moved(packet, timestamp=-overlap) for packet in sent[20:])])
    )
    await line.end()

    expected = len(sent) * FRAME_SAMPLES - FRAME_SAMPLES // 4
    assert line.ledger == Ledger(heard=line.ledger.span)
    assert line.ledger.span == pytest.approx(expected, abs=1)


async def test_empty_payloads_are_passed_over() -> None:
    sent = tone_packets(40)
    sent[10] = sent[10]._replace(payload=b"")
    line = Line()

    await line.carry(on_time(sent))
    await line.end()

    assert line.track.undecodable == 0
    assert line.ledger == Ledger(heard=39 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)


async def test_an_unknown_payload_type_is_counted_and_passed_over() -> None:
    sent = tone_packets(40)
    sent[10] = sent[10]._replace(payload_type=UNKNOWN_TYPE)
    sent[11] = sent[11]._replace(payload_type=UNKNOWN_TYPE)
    line = Line()

    await line.carry(on_time(sent))
    await line.end()

    assert line.track.undecodable == 2
    assert line.ledger == Ledger(heard=38 * FRAME_SAMPLES, concealed=2 * FRAME_SAMPLES)


async def test_a_codec_that_is_negotiated_but_not_decoded_here_is_passed_over() -> None:
    line = Line(codec_of={0: "iLBC"}.get)

    await line.carry(on_time(tone_packets(10)))
    chunks = await line.end()

    assert chunks == []
    assert line.track.undecodable == 10
    assert line.ledger == Ledger()


async def test_another_source_goes_on_by_its_arrival() -> None:
    first = tone_packets(50, ssrc=1)
    second = tone_packets(50, ssrc=2, sequence=40_000, timestamp=123)
    line = Line()

    await line.carry(on_time(first) + on_time(second, at=3.0))
    chunks = await line.end()

    assert line.ledger.heard == 100 * FRAME_SAMPLES
    assert line.ledger.silence == pytest.approx(2 * SAMPLE_RATE, abs=2)
    assert chunks[-1].end_sample == pytest.approx(4 * SAMPLE_RATE, abs=2)
    assert_in_order(chunks)


async def test_what_the_first_source_left_waiting_comes_before_the_second() -> None:
    first = tone_packets(10, ssrc=1)
    del first[7]
    second = tone_packets(10, ssrc=2, sequence=first[-1].sequence_number - 3)
    line = Line()

    await line.carry(on_time(first) + on_time(second, at=10 * FRAME_S))
    await line.end()

    assert line.ledger == Ledger(heard=19 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)
    assert line.track.packets_late == 0


@pytest.mark.parametrize(
    ("before", "after"), [("opus", "PCMU"), ("PCMU", "opus"), ("G722", "PCMA")]
)
async def test_another_codec_goes_on_without_a_gap(before: str, after: str) -> None:
    first = tone_packets(50, before)
    n = len(first)
    second = tone_packets(50, after, sequence=1_000 + n, timestamp=9_999_999)
    line = Line()

    await line.carry(on_time(first) + on_time(second, at=n * FRAME_S))
    chunks = await line.end()

    assert line.ledger.heard == pytest.approx((n + len(second)) * FRAME_SAMPLES, abs=2)
    assert line.ledger.network == 0
    assert line.ledger.silence <= 1
    assert_in_order(chunks)
    assert_accounted(line)
    joint = n * FRAME_SAMPLES
    assert peak(timeline(chunks)[joint + 400 : joint + 1_200]) > 0.03


@pytest.mark.parametrize("overlap", range(1, 7))
async def test_a_piece_of_odd_length_is_not_overlapped_by_the_next_codec(overlap: int) -> None:
    first = tone_packets(20, "opus")
    first = [*first[:10], *(moved(packet, timestamp=-overlap) for packet in first[10:])]
    second = tone_packets(20, "PCMU", sequence=1_000 + len(first))
    line = Line()

    await line.carry(on_time(first) + on_time(second, at=len(first) * FRAME_S))

    assert_in_order(await line.end())
    assert_accounted(line)


async def test_the_time_between_two_codecs_is_kept() -> None:
    first = tone_packets(50)
    second = tone_packets(50, "PCMA", sequence=1_050, timestamp=9_999_999)
    line = Line()

    await line.carry(on_time(first) + on_time(second, at=11.0))
    chunks = await line.end()

    assert line.ledger.silence == pytest.approx(10 * SAMPLE_RATE, abs=2)
    assert chunks[-1].end_sample == pytest.approx(12 * SAMPLE_RATE, abs=2)
    assert [chunk.jump for chunk in chunks if chunk.jump] == [Jump.SILENCE]


async def test_a_track_goes_on_where_the_one_before_it_stood() -> None:
    line = Line(origin=Origin(sample=5 * SAMPLE_RATE, at=100.0))
    line.now = 103.0

    await line.carry(on_time(tone_packets(50), at=103.0 + FRAME_S))
    chunks = await line.end()

    assert chunks[0].start_sample == pytest.approx(8 * SAMPLE_RATE, abs=2)
    assert [chunk.jump for chunk in chunks] == [Jump.NETWORK] + [None] * 9
    assert line.ledger.network == pytest.approx(3 * SAMPLE_RATE, abs=2)
    assert line.ledger.heard == 50 * FRAME_SAMPLES
    assert line.ledger.span == chunks[-1].end_sample - 5 * SAMPLE_RATE


async def test_a_track_that_follows_at_once_hides_nothing_it_heard() -> None:
    line = Line(origin=Origin(sample=5 * SAMPLE_RATE, at=100.0))

    await line.carry(on_time(tone_packets(50), at=100.0 + FRAME_S + 0.04))
    chunks = await line.end()

    # the hole of 40 ms is filled, or left and marked; either way each sample has one fate
    lost = line.ledger.network + line.ledger.concealed
    assert lost == pytest.approx(0.04 * SAMPLE_RATE, abs=2)
    assert line.ledger.heard == 50 * FRAME_SAMPLES
    assert line.ledger.span == chunks[-1].end_sample - 5 * SAMPLE_RATE
    assert chunks[0].jump is Jump.NETWORK


async def test_a_track_from_an_origin_without_a_packet_has_no_span() -> None:
    line = Line(origin=Origin(sample=5 * SAMPLE_RATE, at=100.0))

    assert await line.end() == []
    assert line.ledger == Ledger()


async def test_what_a_full_feed_drops_is_overload() -> None:
    line = Line(bound=5)
    sent = tone_packets(100)
    for n, packet in enumerate(sent):
        line.track.receive(packet, n * FRAME_S)

    chunks = await line.end()

    assert [chunk.start_sample for chunk in chunks] == [n * CHUNK_SAMPLES for n in range(15, 20)]
    assert line.ledger == Ledger(heard=5 * CHUNK_SAMPLES, overload=15 * CHUNK_SAMPLES)


async def test_what_was_concealed_and_dropped_is_overload_only() -> None:
    line = Line(bound=5)
    sent = tone_packets(100)
    del sent[12]
    for n, packet in enumerate(sent):
        line.track.receive(packet, n * FRAME_S)
    line.track.end(2.0)

    assert line.ledger == Ledger(heard=5 * CHUNK_SAMPLES, overload=15 * CHUNK_SAMPLES)


async def test_the_end_hands_on_what_is_held() -> None:
    sent = tone_packets(10)
    del sent[7]
    line = Line()
    await line.carry(on_time(sent))

    chunks = await line.end()

    assert line.feed.is_ended
    assert chunks[-1].end_sample == 10 * FRAME_SAMPLES
    assert line.ledger == Ledger(heard=9 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)


async def test_a_track_ends_once() -> None:
    line = Line()
    await line.carry(on_time(tone_packets(10, "opus")))
    chunks = list(await line.end())

    line.track.end(9.0)

    assert [chunk async for chunk in line.feed] == []
    assert line.ledger.span == chunks[-1].end_sample


def test_ledgers_add_and_subtract_by_fate() -> None:
    one, other = Ledger(5, 4, 3, 2, 1), Ledger(1, 1, 1, 1, 1)

    assert one.plus(other) == Ledger(6, 5, 4, 3, 2)
    assert one.minus(other) == Ledger(4, 3, 2, 1, 0)
    assert one.span == 15
    assert dict(one.fates())["overload"] == 1


ARRIVAL = st.fixed_dictionaries(
    {
        "fate": st.sampled_from(
            ["heard"] * 12 + ["lost", "lost", "late", "twice", "bad", "empty", "unknown"]
        ),
        "delay_s": st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.03, 0.07, 0.2, 1.5]),
        "pause_s": st.sampled_from([0.0] * 12 + [0.03, 0.4, 5.0]),
        "jump": st.sampled_from([0] * 12 + [100, -100, 8_000, -8_000, 2**31, -(2**31), 2**30]),
        "gap": st.sampled_from([0] * 12 + [1, 5, 200, 3_000, 40_000]),
        "ssrc": st.sampled_from([0] * 12 + [1]),
        "codec": st.sampled_from([0] * 12 + [1]),
    }
)


@settings(deadline=None, max_examples=150)
@given(
    plan=st.lists(ARRIVAL, max_size=80),
    origin=st.none() | st.builds(Origin, st.integers(0, 10**7), st.just(0.0)),
)
async def test_every_sample_has_its_fate_whatever_the_network_does(
    plan: list[dict[str, int | float | str]], origin: Origin | None
) -> None:
    line = Line(origin=origin)

    await line.carry(_scripted(plan))
    chunks = await line.end()

    start = origin.sample if origin is not None else 0
    assert_in_order(chunks)
    assert_accounted(line, origin=start)
    assert not chunks or chunks[0].start_sample >= start


def _scripted(plan: list[dict[str, int | float | str]]) -> list[Arrival]:
    """Packets of a sender and a network that do as the plan says."""
    codecs = ["PCMU", "G722"]
    payloads = {codec: tone_packets(1, codec)[0].payload for codec in codecs}
    at, sequence, timestamp, ssrc, codec = 1.0, 65_500, 2**32 - 4_000, 1, 0
    arrivals: list[Arrival] = []
    for n, step in enumerate(plan):
        at += FRAME_S + float(step["pause_s"])
        sequence += 1 + int(step["gap"])
        timestamp += PCMU_FRAME + int(8_000 * float(step["pause_s"])) + int(step["jump"])
        ssrc += int(step["ssrc"])
        codec ^= int(step["codec"])
        kind = codecs[codec]
        (packet,) = packets(
            [payloads[kind]], kind, ssrc=ssrc, sequence=sequence, timestamp=timestamp
        )
        fate = step["fate"]
        if fate == "unknown":
            packet = packet._replace(payload_type=UNKNOWN_TYPE)
        elif fate in ("bad", "empty"):
            packet = packet._replace(payload=b"" if fate == "empty" else b"\x00")
        if fate != "lost":
            delay_s = 0.3 if fate == "late" else float(step["delay_s"])
            arrivals.append(Arrival(at + delay_s, n, packet))
        if fate == "twice":
            arrivals.append(Arrival(at + 0.01, n + len(plan), packet))
    return arrivals


async def test_silence_that_is_sent_is_heard() -> None:
    line = Line()

    await line.carry(on_time(packets(encoded(silence(1.0, 48_000)))))
    await line.end()

    assert line.ledger == Ledger(heard=line.ledger.span)


# Loss


async def test_a_lost_packet_is_restored_in_its_place() -> None:
    said = spoken(OPEN_THE_MEETING)
    sent = packets(encoded_wideband(said, 60), packet_ms=60)
    line, straight = Line(), Line()

    lost = 20
    await line.carry(a for a in on_time(sent, every_s=0.06) if a.order != lost)
    await straight.carry(on_time(sent, every_s=0.06))

    heard, whole = timeline(await line.end()), timeline(await straight.end())
    at = slice(lost * 960, (lost + 1) * 960)
    assert len(heard) == len(whole)
    assert line.ledger == Ledger(heard=len(whole) - 960, concealed=960)
    assert line.track.restored == 960
    assert correlation(heard[at], whole[at])[0] > 0.8
    assert np.array_equal(heard[: at.start], whole[: at.start])


async def test_after_a_lost_packet_nothing_comes_later_than_before() -> None:
    sent = tone_packets(200, "opus")
    line, straight = Line(), Line()

    await line.carry(a for a in on_time(sent) if a.order != 54)
    await straight.carry(on_time(sent))
    chunks, undisturbed = await line.end(), await straight.end()

    assert line.ledger == Ledger(heard=199 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)
    assert [(c.start_sample, len(c.samples)) for c in chunks] == [
        (c.start_sample, len(c.samples)) for c in undisturbed
    ]
    late = [
        chunk.start_sample
        for chunk, other in zip(chunks, undisturbed, strict=True)
        if chunk.received_at > other.received_at
    ]
    assert late == [50 * FRAME_SAMPLES]


async def test_a_hole_where_nothing_was_lost_is_not_filled_with_what_was_heard() -> None:
    """The sender left out 60 ms: the next packet's copy is of what stands before them."""
    said = spoken(OPEN_THE_MEETING)
    sent = packets(encoded_wideband(said, 60), packet_ms=60)
    at = 20
    after = [moved(packet, timestamp=2_880) for packet in sent[at:]]
    line = Line()

    await line.carry(on_time([*sent[:at], *after], every_s=0.06))
    heard = timeline(await line.end())

    before, hole = heard[(at - 1) * 960 : at * 960], heard[at * 960 : (at + 1) * 960]
    assert line.ledger.concealed == 960
    assert line.track.restored == 0
    assert level(hole) < level(before)


@pytest.mark.parametrize("units", [1, 2, 3, 37, 119, 2_879])
async def test_a_hole_of_any_length_moves_nothing_behind_it(units: int) -> None:
    sent = tone_packets(60, "opus")
    shifted = [*sent[:20], *(moved(packet, timestamp=units) for packet in sent[20:])]
    line = Line()

    await line.carry(on_time(shifted))
    await line.end()

    assert line.ledger.span == 60 * FRAME_SAMPLES + units // 3
    assert line.ledger.concealed == units // 3


@pytest.mark.parametrize("bad", [b"\x03", b"\xff\xff\xff\xff", b"\x9b\x3f"])
async def test_a_payload_that_claims_more_than_a_packet_can_hold_moves_nothing(bad: bytes) -> None:
    sent = tone_packets(60, "opus")
    sent[20] = sent[20]._replace(payload=bad)
    sent[30] = sent[30]._replace(payload=bad, level=127)
    line = Line()

    await line.carry(on_time(sent))
    await line.end()

    assert line.track.undecodable == 2
    assert line.ledger == Ledger(heard=58 * FRAME_SAMPLES, concealed=2 * FRAME_SAMPLES)


@pytest.mark.parametrize("codec", list(KINDS))
async def test_at_a_pause_all_that_was_said_is_handed_on(codec: str) -> None:
    sent = tone_packets(47, codec)
    line = Line()
    await line.carry(on_time(sent))

    line.track.pause(3.0)
    await line.read()

    assert sum(len(chunk.samples) for chunk in line.chunks) == pytest.approx(
        47 * FRAME_SAMPLES, abs=1
    )
    later = [moved(p, timestamp=5 * KINDS[codec].clock_rate, sequence=47) for p in sent]
    await line.carry(on_time(later, at=5.94))
    line.track.pause(9.0)
    chunks = await line.end()
    assert_in_order(chunks)
    assert_accounted(line)
    assert line.ledger.heard == pytest.approx(2 * 47 * FRAME_SAMPLES, abs=2)


async def test_at_a_pause_what_waits_behind_a_hole_is_handed_on() -> None:
    sent = tone_packets(12, "opus")
    del sent[10]
    line = Line()
    await line.carry(on_time(sent))

    line.track.pause(0.25)
    await line.read()

    assert line.ledger == Ledger(heard=11 * FRAME_SAMPLES, concealed=FRAME_SAMPLES)


# Levels


class CountingDecoder(LibopusDecoder):
    """Notes what it is given."""

    def __init__(self) -> None:
        library = libopus()
        if library is None:
            pytest.skip("no libopus here")
        super().__init__(library)
        self.decoded = 0

    def decode(self, payload: bytes, skip: int = 0) -> Samples:
        self.decoded += 1
        return super().decode(payload, skip)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[CountingDecoder]:
    """Those that tracks make."""
    made: list[CountingDecoder] = []

    def make() -> CountingDecoder:
        made.append(CountingDecoder())
        return made[-1]

    monkeypatch.setitem(CODECS, "opus", replace(CODECS["opus"], make_decoder=make))
    return made


def with_level(sent: list[RtpPacket], level: int | None) -> list[RtpPacket]:
    return [packet._replace(level=level) for packet in sent]


@pytest.mark.parametrize("silent", [SILENT_LEVEL, 127])
async def test_packets_whose_level_says_silence_are_not_decoded(
    decoders: list[CountingDecoder], silent: int
) -> None:
    sent = tone_packets(100, "opus")
    loud = SILENT_LEVEL - 1
    line = Line()

    await line.carry(
        on_time(
            [
                *with_level(sent[:40], loud),
                *with_level(sent[40:70], silent),
                *with_level(sent[70:], loud),
            ]
        )
    )
    chunks = await line.end()

    (decoder,) = decoders
    assert decoder.decoded == 70
    assert line.ledger == Ledger(heard=100 * FRAME_SAMPLES)
    assert not timeline(chunks)[40 * FRAME_SAMPLES : 70 * FRAME_SAMPLES].any()
    assert all(chunk.jump is None for chunk in chunks)
    assert_in_order(chunks)


async def test_packets_without_a_level_are_decoded(decoders: list[CountingDecoder]) -> None:
    line = Line()

    await line.carry(on_time(tone_packets(40, "opus")))

    assert decoders[0].decoded == 40


def largest_step(samples: Samples) -> int:
    return int(np.abs(np.diff(samples.astype(np.int32))).max())


async def test_the_next_sound_after_silence_does_not_click() -> None:
    sent = tone_packets(100, "opus")
    quiet = [*sent[:40], *with_level(sent[40:70], 127), *sent[70:]]
    line, straight = Line(), Line()

    await line.carry(on_time(quiet))
    await straight.carry(on_time(sent))
    heard, whole = timeline(await line.end()), timeline(await straight.end())

    # where it begins again, and where it stops, no step is larger than the sound's own
    again = heard[70 * FRAME_SAMPLES - 1 :]
    assert largest_step(again) < 2 * largest_step(whole)
    assert peak(again[: FRAME_SAMPLES // 2]) < 2 * peak(whole)


@pytest.mark.parametrize("codec", list(KINDS))
async def test_silence_by_level_is_as_long_in_any_codec(codec: str) -> None:
    sent = tone_packets(100, codec)
    sent = [p._replace(level=127) if n % 20 > 12 else p for n, p in enumerate(sent)]
    line = Line()

    await line.carry(on_time(sent))
    chunks = await line.end()

    assert line.ledger.heard == pytest.approx(100 * FRAME_SAMPLES, abs=6)
    assert line.ledger.span == line.ledger.heard
    assert_in_order(chunks)


async def test_a_loss_among_silence_leaves_no_sound_behind() -> None:
    sent = tone_packets(100, "opus")
    quiet = [*sent[:40], *with_level(sent[40:], 127)]
    line = Line()

    await line.carry(a for a in on_time(quiet) if a.order != 60)
    heard = timeline(await line.end())

    assert line.ledger.concealed == FRAME_SAMPLES
    assert peak(heard[40 * FRAME_SAMPLES :]) < 1e-3


async def test_a_copy_heard_among_silence_leaves_no_trace_in_the_next_sound() -> None:
    sent = packets(encoded_wideband(spoken(OPEN_THE_MEETING), 60), packet_ms=60)
    quiet = [p._replace(level=127) if 15 <= n < 35 else p for n, p in enumerate(sent)]
    line, straight = Line(), Line()

    await line.carry(a for a in on_time(quiet, every_s=0.06) if a.order != 20)
    await straight.carry(on_time(quiet, every_s=0.06))
    heard, whole = timeline(await line.end()), timeline(await straight.end())

    assert heard[20 * 960 : 21 * 960].any()
    assert np.array_equal(heard[21 * 960 :], whole[21 * 960 :])


async def test_silence_longer_than_any_browser_sends_is_as_long_as_it_says() -> None:
    (packet,) = packets([b"\xff" * 5_000], "PCMU")
    line = Line()

    await line.carry(on_time([packet._replace(level=127)]))
    await line.end()

    assert line.ledger == Ledger(heard=10_000)

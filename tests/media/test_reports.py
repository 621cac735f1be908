"""What a sender is told of its packets, held to a simple model and to aiortc's parser."""

import struct

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)
from hypothesis import given
from hypothesis import strategies as st

from media.reports import FIRST_REPORT_S, REPORT_EVERY_S, Reports

OWN, ADA, BOB = 7, 11, 12
CLOCK_RATE = 48_000
FRAME = 960
MOST_SOURCES = 31
DROPOUT = 3_000


def count(
    reports: Reports,
    *sequences: int,
    ssrc: int = ADA,
    at: float = 10.0,
    timestamp: int | None = None,
) -> None:
    """Packets that came, on time for a sender whose clock began with ours."""
    for sequence in sequences:
        told = round(at * CLOCK_RATE) if timestamp is None else timestamp
        reports.count(ssrc, sequence & 0xFFFF, told & 0xFFFFFFFF, CLOCK_RATE, at)


def report(reports: Reports, now: float = 20.0) -> dict[int, RtcpReceiverInfo]:
    """The next report as aiortc reads it, by source."""
    (packet,) = RtcpPacket.parse(reports.next_report(now))
    assert isinstance(packet, RtcpRrPacket)
    assert packet.ssrc == OWN
    return {block.ssrc: block for block in packet.reports}


def heard(*sequences: int, **fields: float) -> Reports:
    reports = Reports(OWN)
    count(reports, *sequences, **fields)  # type: ignore[arg-type]
    return reports


def sender_report(ssrc: int = ADA, ntp_time: int = 0x0001_2345_6789_ABCD) -> bytes:
    return bytes(RtcpSrPacket(ssrc, RtcpSenderInfo(ntp_time, 0, 1, 1)))


def goodbye(*sources: int) -> bytes:
    return bytes(RtcpByePacket(list(sources)))


# When


def test_the_first_report_is_due_a_second_after_the_first_packet() -> None:
    assert heard(1, 2, at=10.0).due == 10.0 + FIRST_REPORT_S
    assert Reports(OWN).due > 1e9


@pytest.mark.parametrize("spread", [0.0, 0.5, 0.999])
def test_the_next_is_due_five_seconds_later_on_average(spread: float) -> None:
    reports = Reports(OWN, spread=lambda: spread)
    count(reports, 1)

    reports.next_report(20.0)

    assert reports.due == 20.0 + REPORT_EVERY_S * (0.5 + spread)


def test_another_source_puts_no_report_off() -> None:
    reports = heard(1, at=10.0)

    count(reports, 1, ssrc=BOB, at=10.5)

    assert reports.due == 10.0 + FIRST_REPORT_S


# Loss


def test_of_a_sender_that_loses_nothing_nothing_is_lost() -> None:
    block = report(heard(*range(65_530, 65_600)))[ADA]

    assert (block.packets_lost, block.fraction_lost) == (0, 0)
    assert block.highest_sequence == 65_599
    assert (block.jitter, block.lsr, block.dlsr) == (0, 0, 0)


def test_a_share_is_of_the_packets_since_the_report_before() -> None:
    reports = heard(1, 2, 5, 8)
    first = report(reports)[ADA]
    count(reports, *range(9, 17))
    second = report(reports)[ADA]
    count(reports, 24)
    third = report(reports)[ADA]

    assert (first.packets_lost, first.fraction_lost) == (4, 128)
    assert (second.packets_lost, second.fraction_lost) == (4, 0)
    assert (third.packets_lost, third.fraction_lost) == (11, 7 * 256 // 8)


def test_a_late_packet_is_not_lost() -> None:
    reports = heard(1, 2, 4, 3)

    assert report(reports)[ADA].packets_lost == 0


def test_a_late_packet_that_was_told_lost_makes_no_share() -> None:
    reports = heard(1, 2, 4)
    assert report(reports)[ADA].packets_lost == 1

    count(reports, 3)
    block = report(reports)[ADA]

    assert (block.packets_lost, block.fraction_lost) == (0, 0)


def test_what_comes_before_the_first_makes_less_than_nothing_lost() -> None:
    assert report(heard(10, 9))[ADA].packets_lost == -1


def test_without_a_packet_between_two_reports_nothing_is_lost() -> None:
    reports = heard(1, 3)
    report(reports)

    assert report(reports)[ADA].fraction_lost == 0


def test_a_share_of_nearly_all_fits() -> None:
    assert report(heard(1, DROPOUT))[ADA].fraction_lost == 255


def test_more_losses_than_fit_are_as_many_as_fit() -> None:
    reports = heard(*range(0, 3_000 * DROPOUT, DROPOUT))

    assert report(reports)[ADA].packets_lost == 0x7FFFFF


@pytest.mark.parametrize("step", [DROPOUT + 1, 0x8000, -DROPOUT - 1])
def test_a_sender_that_begins_anew_has_lost_nothing(step: int) -> None:
    reports = heard(40_000, 40_002)
    report(reports)

    count(reports, 40_002 + step, 40_003 + step)

    block = report(reports)[ADA]
    assert (block.packets_lost, block.fraction_lost) == (0, 0)
    assert block.highest_sequence & 0xFFFF == (40_003 + step) & 0xFFFF


class Model:
    """Loss by definition: of all that came of one run of numbers."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._told = (0, 0)

    @property
    def highest(self) -> int:
        return max(self.came)

    def block(self) -> tuple[int, int]:
        """Lost in all, and the share of those since the last time, of 256."""
        expected, received = self.highest - self.came[0] + 1, len(self.came)
        of, got = expected - self._told[0], received - self._told[1]
        self._told = (expected, received)
        return expected - received, min(255, max(0, of - got) * 256 // of) if of else 0


packets = st.tuples(
    st.sampled_from([1, 1, 1, 1, 2, 5, 100]),  # numbers on
    st.sampled_from([0, 0, 0, 1, 2, 20]),  # packets that overtake it
    st.booleans(),  # a report follows
)


@given(st.integers(0, 0xFFFF), st.lists(packets, min_size=1, max_size=1_000))
def test_loss_and_reordering_over_wraps_are_told_as_the_model_has_them(
    first: int, script: list[tuple[int, int, bool]]
) -> None:
    sequence, sent = first, []
    for place, (step, overtaken, is_told) in enumerate(script):
        sent.append((place + overtaken, place, sequence, is_told))
        sequence += step
    sent.sort()
    reports, model = Reports(OWN), Model()
    # what the receiver cannot know: how often the numbers had wrapped before
    wraps = sent[0][2] & ~0xFFFF

    for _, _, came, is_told in sent:
        count(reports, came)
        model.came.append(came - wraps)
        if is_told:
            block = report(reports)[ADA]
            assert (block.packets_lost, block.fraction_lost) == model.block()
            assert block.highest_sequence == model.highest


@given(
    st.lists(
        st.sampled_from([1, 1, 1, 2, 2_999, DROPOUT, DROPOUT + 1, 20_000, 0x8000, 60_000]),
        max_size=200,
    )
)
def test_gaps_are_losses_up_to_where_the_sender_began_anew(steps: list[int]) -> None:
    sequence = 65_000
    reports, model = heard(sequence), Model()
    model.came.append(sequence)

    for step in steps:
        sequence += step
        if step > DROPOUT:
            model = Model()
        count(reports, sequence)
        model.came.append(sequence)
        block = report(reports)[ADA]
        assert (block.packets_lost, block.fraction_lost) == model.block()
        assert block.highest_sequence & 0xFFFF == sequence & 0xFFFF


# Jitter


def test_packets_that_come_as_they_were_sent_have_no_jitter() -> None:
    reports = Reports(OWN)
    for n in range(100):
        count(reports, n, at=10.0 + n * 0.02, timestamp=2**32 - 20 * FRAME + n * FRAME)

    assert report(reports)[ADA].jitter == 0


def test_jitter_nears_what_the_transit_changes_by() -> None:
    reports = Reports(OWN)
    for n in range(200):
        count(reports, n, at=10.0 + n * 0.02 + 0.01 * (n % 2), timestamp=n * FRAME)

    assert report(reports)[ADA].jitter == pytest.approx(0.01 * CLOCK_RATE, rel=0.01)


def test_jitter_is_the_sixteenth_part_of_the_first_change() -> None:
    reports = Reports(OWN)
    count(reports, 1, at=10.0, timestamp=0)
    count(reports, 2, at=10.02 + 0.01, timestamp=FRAME)

    assert report(reports)[ADA].jitter == pytest.approx(0.01 * CLOCK_RATE / 16, abs=1)


@pytest.mark.parametrize("leap", [2**31, -(2**31), CLOCK_RATE, 2**32 - 1])
def test_a_timestamp_that_leaps_is_no_jitter(leap: int) -> None:
    reports = Reports(OWN)
    for n in range(400):
        count(reports, n, at=10.0 + n * 0.02, timestamp=n * FRAME + leap * (n % 2))

    assert report(reports)[ADA].jitter < CLOCK_RATE


def test_a_sender_that_begins_anew_has_no_jitter_from_before() -> None:
    reports = Reports(OWN)
    count(reports, 1, at=10.0, timestamp=0)
    count(reports, 20_000, at=10.0, timestamp=CLOCK_RATE // 2)

    assert report(reports)[ADA].jitter == 0


def test_a_late_packet_is_no_jitter() -> None:
    reports = Reports(OWN)
    for n, at in ((1, 10.0), (3, 10.04), (2, 10.05), (4, 10.06)):
        count(reports, n, at=at, timestamp=n * FRAME)

    assert report(reports)[ADA].jitter == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.floats(0, 1e6)),
        max_size=50,
    ),
    st.sampled_from([8_000, 48_000, 90_000]),
)
def test_whatever_a_sender_sends_there_is_a_report(
    sent: list[tuple[int, int, float]], clock_rate: int
) -> None:
    reports, now = Reports(OWN), 0.0
    for sequence, timestamp, pause_s in sent:
        now += pause_s
        reports.count(ADA, sequence, timestamp, clock_rate, now)
        reports.receive(sender_report(), now)
        assert report(reports, now)[ADA].jitter < clock_rate


# Sources


def test_each_source_has_its_own_block() -> None:
    reports = heard(1, 3)
    count(reports, 65_535, 65_536, ssrc=BOB)

    told = report(reports)

    assert {ssrc: block.packets_lost for ssrc, block in told.items()} == {ADA: 1, BOB: 0}
    assert told[BOB].highest_sequence == 65_536


def test_of_very_many_sources_the_newest_are_told() -> None:
    reports = Reports(OWN)
    for ssrc in range(200):
        count(reports, 1, ssrc=ssrc)

    assert list(report(reports)) == list(range(200 - MOST_SOURCES, 200))


# What the sender says


def test_a_report_says_when_the_senders_own_came() -> None:
    reports = heard(1)
    assert reports.receive(sender_report(ntp_time=0x0001_2345_6789_ABCD), 18.5) == []

    block = report(reports, 20.0)[ADA]

    assert (block.lsr, block.dlsr) == (0x2345_6789, round(1.5 * 65_536))


def test_a_delay_longer_than_fits_is_as_long_as_fits() -> None:
    reports = heard(1)
    reports.receive(sender_report(), 20.0)

    assert report(reports, 1e9)[ADA].dlsr == 65_535 << 16


def test_a_report_of_a_source_that_was_never_heard_is_passed_over() -> None:
    reports = heard(1)

    assert reports.receive(sender_report(BOB), 18.5) == []

    assert {ssrc: block.lsr for ssrc, block in report(reports).items()} == {ADA: 0}


def test_a_source_that_says_goodbye_is_forgotten() -> None:
    reports = heard(1)
    count(reports, 1, ssrc=BOB)

    assert reports.receive(sender_report() + goodbye(5, ADA), 18.5) == [ADA]
    assert reports.receive(goodbye(ADA), 18.5) == []

    assert set(report(reports)) == {BOB}


def test_a_source_that_comes_back_begins_anew() -> None:
    reports = heard(1, 5)
    reports.receive(goodbye(ADA), 18.5)

    count(reports, 20_000)

    assert report(reports)[ADA].packets_lost == 0


def test_a_goodbye_of_nobody_and_one_with_a_reason_are_read() -> None:
    reason = struct.pack("!BBHI", 0x81, 203, 3, ADA) + b"\x06ciao ,\x00"
    reports = heard(1)

    assert reports.receive(goodbye(), 18.5) == []
    assert reports.receive(reason, 18.5) == [ADA]


@pytest.mark.parametrize(
    "other",
    [
        RtcpSdesPacket([RtcpSourceInfo(ADA, [(1, b"ada")])]),
        RtcpRrPacket(ADA, []),
        RtcpRtpfbPacket(1, ADA, OWN, [3]),
        RtcpPsfbPacket(1, ADA, OWN),
    ],
)
def test_other_packets_are_passed_over(other: object) -> None:
    reports = heard(1)

    assert reports.receive(bytes(other) + goodbye(ADA), 18.5) == [ADA]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("why", "broken"),
    [
        ("no room", b"\x80\xcb\x00"),
        ("not RTCP", b"\x40" + goodbye()[1:]),
        ("not RTCP", goodbye(ADA)[:4]),
        ("without its sender", struct.pack("!BBH", 0x80, 200, 5) + bytes(20)),
        ("without its sources", struct.pack("!BBHI", 0x82, 203, 1, ADA)),
    ],
)
def test_what_is_shorter_than_it_says_is_refused_as_a_whole(why: str, broken: bytes) -> None:
    reports = heard(1)

    with pytest.raises(ValueError, match=why):
        reports.receive(sender_report() + goodbye(ADA) + broken, 18.5)

    assert {ssrc: block.lsr for ssrc, block in report(reports).items()} == {ADA: 0}


whole = st.sampled_from(
    [sender_report(), goodbye(ADA), goodbye(), bytes(RtcpRrPacket(ADA, [])), sender_report(BOB)]
)
cut = st.builds(
    lambda packet, at, rest: packet[:at] + rest, whole, st.integers(0, 28), st.binary(max_size=8)
)
compounds = st.lists(whole | cut, max_size=4).map(b"".join)


@given(compounds | st.binary(max_size=200))
def test_any_bytes_are_read_or_a_value_error_that_changes_nothing(data: bytes) -> None:
    reports, untouched = heard(1, 4), heard(1, 4)
    try:
        gone = reports.receive(data, 18.5)
    except ValueError:
        assert reports.next_report(20.0) == untouched.next_report(20.0)
    else:
        assert set(gone) <= {ADA}
        assert set(report(reports)) == {ADA} - set(gone)

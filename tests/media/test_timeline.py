"""`Timeline`: where a frame stands, by its timestamp if that is to be believed, else by
the time that passed here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.timeline import Jump, Placement, Timeline

RATE = 48_000
FRAME = 960  # 20 ms
FRAME_S = 0.02


class Sender:
    """Places frames of 20 ms; `now` runs as its frames do, until told otherwise."""

    def __init__(
        self, timestamp: int = 0, *, position: int = 0, at: float | None = None, now: float = 100.0
    ) -> None:
        self.timeline = Timeline(RATE, position=position, at=at)
        self.timestamp = timestamp
        self.now = now

    def frame(
        self, *, ahead: int = 0, later_s: float = 0.0, lost: bool = False, length: int = FRAME
    ) -> Placement:
        """The next frame, its timestamp `ahead` of the last one's end."""
        self.now += later_s
        timestamp = (self.timestamp + ahead) & 0xFFFFFFFF
        placed = self.timeline.place(timestamp, length, lost=lost, now=self.now)
        self.timestamp = timestamp + length
        self.now += length / RATE
        return placed

    def frames(self, count: int) -> list[Placement]:
        return [self.frame() for _ in range(count)]


def test_frames_that_follow_on_each_other_stand_in_one_piece() -> None:
    placed = Sender(timestamp=77).frames(5)

    assert placed == [Placement(n * FRAME) for n in range(5)]


def test_the_first_frame_stands_at_the_start_whatever_its_timestamp() -> None:
    assert Sender(timestamp=3_999_999_999).frame() == Placement(0)


@pytest.mark.parametrize("missing_ms", [20, 40, 60])
def test_a_small_hole_is_filled(missing_ms: int) -> None:
    sender = Sender()
    sender.frame()
    missing = missing_ms * RATE // 1000

    placed = sender.frame(ahead=missing, later_s=missing_ms / 1000, lost=True)

    assert placed == Placement(FRAME + missing, fill=missing)
    assert sender.frame() == Placement(FRAME + missing + FRAME)


def test_a_loss_of_60_ms_and_the_packet_that_the_next_one_brings_is_filled() -> None:
    sender = Sender()
    sender.frame()
    missing = 80 * RATE // 1000

    placed = sender.frame(ahead=missing, later_s=0.08, lost=True)

    assert placed == Placement(FRAME + missing, fill=missing)


@pytest.mark.parametrize(("missing_ms", "lost"), [(81, True), (61, False)])
def test_a_longer_hole_is_a_jump(missing_ms: int, lost: bool) -> None:
    sender = Sender()
    sender.frame()
    missing = missing_ms * RATE // 1000

    placed = sender.frame(ahead=missing, later_s=missing_ms / 1000, lost=lost)

    jump = Jump.NETWORK if lost else Jump.SILENCE
    assert placed == Placement(FRAME + missing, jump=jump)


def test_a_pause_of_the_sender_is_silence() -> None:
    sender = Sender()
    sender.frame()

    placed = sender.frame(ahead=5 * RATE, later_s=5.0)

    assert placed == Placement(FRAME + 5 * RATE, jump=Jump.SILENCE)


def test_packets_that_did_not_arrive_are_a_network_jump() -> None:
    sender = Sender()
    sender.frame()

    placed = sender.frame(ahead=RATE // 2, later_s=0.5, lost=True)

    assert placed == Placement(FRAME + RATE // 2, jump=Jump.NETWORK)


def test_the_overlapping_head_of_a_frame_is_cut() -> None:
    sender = Sender()
    sender.frame()

    assert sender.frame(ahead=-100) == Placement(FRAME, skip=100)
    assert sender.timeline.position == 2 * FRAME - 100
    assert sender.frame() == Placement(2 * FRAME - 100)


def test_a_frame_that_was_heard_already_is_cut_whole() -> None:
    sender = Sender()
    sender.frames(3)

    placed = sender.timeline.place(FRAME, FRAME, lost=False, now=sender.now)

    assert placed == Placement(3 * FRAME, skip=FRAME)
    assert sender.timeline.position == 3 * FRAME
    # and the clock goes on where it was
    assert sender.frame() == Placement(3 * FRAME)


def test_a_jump_forward_without_time_is_not_believed() -> None:
    sender = Sender()
    sender.frame()

    assert sender.frame(ahead=2**31 - 1) == Placement(FRAME)
    assert sender.frame() == Placement(2 * FRAME)


def test_a_jump_backward_is_not_believed() -> None:
    sender = Sender(timestamp=2**31)
    sender.frame()

    assert sender.frame(ahead=-2 * RATE) == Placement(FRAME)
    assert sender.frame() == Placement(2 * FRAME)


@pytest.mark.parametrize("ahead", [2**31 - 1, -(2**31), -60 * RATE, 60 * RATE])
def test_instead_of_a_timestamp_that_jumps_the_elapsed_time_counts(ahead: int) -> None:
    sender = Sender(timestamp=2**31)
    sender.frame()

    placed = sender.frame(ahead=ahead, later_s=10.0)

    assert placed.jump is Jump.SILENCE
    assert placed.position == pytest.approx(FRAME + 10 * RATE, abs=1)


def test_a_short_wait_at_a_jump_of_the_timestamp_is_filled() -> None:
    sender = Sender()
    sender.frame()

    placed = sender.frame(ahead=2**30, later_s=0.05)

    assert placed.jump is None
    assert placed.fill == pytest.approx(0.05 * RATE, abs=1)
    assert placed.position == FRAME + placed.fill


@pytest.mark.parametrize(("ahead", "believed"), [(RATE, True), (RATE + 1, False)])
def test_a_timestamp_may_run_one_second_ahead_of_its_arrival(ahead: int, believed: bool) -> None:
    sender = Sender()
    sender.frame()

    placed = sender.timeline.place(FRAME + ahead, FRAME, lost=True, now=100.0 + FRAME_S)

    assert placed.position == FRAME + (ahead if believed else 0)


@pytest.mark.parametrize(("back", "believed"), [(RATE // 10, True), (RATE // 10 + 1, False)])
def test_a_timestamp_may_lie_a_tenth_of_a_second_back(back: int, believed: bool) -> None:
    sender = Sender(timestamp=10 * RATE)
    sender.frame()

    assert sender.frame(ahead=-back).skip == (FRAME if believed else 0)


def test_a_late_burst_keeps_its_place() -> None:
    sender = Sender()
    sender.frame()
    sender.now += 3.0

    burst = [
        sender.timeline.place(FRAME * n, FRAME, lost=False, now=sender.now) for n in range(1, 151)
    ]

    assert burst == [Placement(n * FRAME) for n in range(1, 151)]


def test_timestamps_wrap_at_32_bits() -> None:
    sender = Sender(timestamp=2**32 - 2 * FRAME - 7)

    assert sender.frames(5) == [Placement(n * FRAME) for n in range(5)]


def test_a_hole_across_the_wrap_is_filled() -> None:
    sender = Sender(timestamp=2**32 - FRAME)
    sender.frame()

    assert sender.frame(ahead=FRAME, later_s=FRAME_S, lost=True).fill == FRAME


def test_another_source_is_placed_by_its_arrival() -> None:
    sender = Sender()
    sender.frame()

    sender.timeline.restart()
    placed = sender.frame(ahead=123_456_789, later_s=2.0)

    assert placed.jump is Jump.SILENCE
    assert placed.position == pytest.approx(FRAME + 2 * RATE, abs=1)
    assert sender.frame() == Placement(placed.position + FRAME)


def test_another_source_without_a_pause_follows_on() -> None:
    sender = Sender()
    sender.frame()

    sender.timeline.restart()

    assert sender.frame(ahead=123_456_789) == Placement(FRAME)


def test_a_track_goes_on_where_the_one_before_it_stood() -> None:
    sender = Sender(position=7 * RATE, at=100.0, now=103.0 + FRAME_S)

    placed = sender.frame()

    assert placed.position == pytest.approx(10 * RATE, abs=1)
    assert placed.jump is Jump.SILENCE


def test_a_track_that_follows_at_once_is_filled() -> None:
    sender = Sender(position=RATE, at=100.0, now=100.0 + FRAME_S + 0.01)

    placed = sender.frame()

    assert placed.fill == pytest.approx(0.01 * RATE, abs=1)
    assert placed.position == RATE + placed.fill


def test_an_earlier_position_without_a_time_is_gone_on_from() -> None:
    assert Sender(position=RATE).frame() == Placement(RATE)


def test_time_that_runs_back_counts_as_none() -> None:
    sender = Sender()
    sender.frame()

    assert sender.frame(ahead=2**30, later_s=-50.0) == Placement(FRAME)


@given(
    start=st.integers(0, 2**32 - 1),
    frames=st.lists(
        st.tuples(
            st.integers(-(2**31), 2**31 - 1) | st.integers(-2 * RATE, 2 * RATE) | st.just(0),
            st.floats(0, 10),
            st.sampled_from([120, 480, 960, 2880]),
            st.booleans(),
        ),
        max_size=60,
    ),
)
def test_positions_only_grow_and_account_for_every_unit(
    start: int, frames: list[tuple[int, float, int, bool]]
) -> None:
    sender = Sender(timestamp=start)
    began = sender.now
    end = 0
    for ahead, later_s, length, lost in frames:
        placed = sender.frame(ahead=ahead, later_s=later_s, length=length, lost=lost)

        assert 0 <= placed.skip <= length
        assert placed.position - placed.fill >= end
        assert placed.jump is not None or placed.position - placed.fill == end
        end = placed.position + length - placed.skip
        assert sender.timeline.position == end
        # each frame may run ahead of its time by a second, and no more
        assert end <= (sender.now - began + len(frames)) * RATE + len(frames)

"""`ReorderBuffer`: order comes back, a loss costs its own packet, nothing waits long."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.jitter import InOrder, ReorderBuffer

HOLD_S = 0.08
DEPTH = 4


def buffer() -> ReorderBuffer[str]:
    return ReorderBuffer(hold_s=HOLD_S, depth=DEPTH)


def push_all(
    reorder: ReorderBuffer[str], sequences: Iterable[int], *, at: float = 0.0
) -> list[str]:
    """Push packets named after their sequence numbers, all at one time."""
    return [
        turn.packet
        for sequence in sequences
        for turn in reorder.push(sequence & 0xFFFF, str(sequence), at)
    ]


def names(turns: Iterable[InOrder[str]]) -> list[str]:
    return [turn.packet for turn in turns]


def test_packets_in_order_pass_at_once() -> None:
    reorder = buffer()

    for sequence in range(100, 110):
        assert reorder.push(sequence, str(sequence), 0.0) == [InOrder(str(sequence), 0)]

    assert reorder.next_deadline() is None
    assert (reorder.lost, reorder.late) == (0, 0)


def test_a_packet_that_overtook_another_waits_for_it() -> None:
    reorder = buffer()
    push_all(reorder, [1])

    assert reorder.push(3, "3", 0.0) == []
    assert reorder.push(2, "2", 0.0) == [InOrder("2", 0), InOrder("3", 0)]
    assert reorder.lost == 0


def test_packets_turned_round_within_the_depth_come_out_in_order() -> None:
    assert push_all(buffer(), [10, 13, 12, 11, 14, 16, 15]) == [str(n) for n in range(10, 17)]


def test_a_lost_packet_is_given_up_when_the_depth_is_full() -> None:
    reorder = buffer()
    push_all(reorder, [1])

    assert push_all(reorder, [3, 4, 5]) == []
    turns = reorder.push(6, "6", 0.0)

    assert turns == [InOrder("3", 1), InOrder("4", 0), InOrder("5", 0), InOrder("6", 0)]
    assert reorder.lost == 1


def test_after_a_loss_packets_pass_at_once_again() -> None:
    reorder = buffer()
    push_all(reorder, [1, 3, 4, 5, 6])

    assert push_all(reorder, [7]) == ["7"]
    assert reorder.next_deadline() is None


def test_a_hole_is_given_up_when_the_packet_behind_it_is_old() -> None:
    reorder = buffer()
    push_all(reorder, [1], at=10.0)
    push_all(reorder, [3], at=10.02)

    assert reorder.next_deadline() == pytest.approx(10.02 + HOLD_S)
    assert reorder.expire(10.02 + HOLD_S - 0.001) == []
    assert reorder.expire(10.02 + HOLD_S) == [InOrder("3", 1)]
    assert reorder.next_deadline() is None


def test_the_deadline_follows_the_packet_that_waits_longest() -> None:
    reorder = buffer()
    push_all(reorder, [1], at=0.0)
    push_all(reorder, [5], at=1.0)
    push_all(reorder, [3], at=1.05)

    assert reorder.next_deadline() == pytest.approx(1.0 + HOLD_S)
    # 3 is younger, but stands before 5: giving 5 its turn gives 3 its own
    assert names(reorder.expire(1.0 + HOLD_S)) == ["3", "5"]
    assert reorder.lost == 2


def test_a_younger_packet_behind_a_second_hole_keeps_waiting() -> None:
    reorder = buffer()
    push_all(reorder, [1], at=0.0)
    push_all(reorder, [3], at=1.0)
    push_all(reorder, [5], at=1.05)

    assert names(reorder.expire(1.0 + HOLD_S)) == ["3"]
    assert reorder.next_deadline() == pytest.approx(1.05 + HOLD_S)


def test_a_push_also_ends_the_wait_that_is_over() -> None:
    reorder = buffer()
    push_all(reorder, [1], at=0.0)
    push_all(reorder, [3], at=0.0)

    assert names(reorder.push(5, "5", HOLD_S)) == ["3"]


def test_a_packet_after_its_turn_is_late_and_dropped() -> None:
    reorder = buffer()
    push_all(reorder, [1, 3, 4, 5, 6])

    assert push_all(reorder, [2]) == []
    assert reorder.late == 1
    assert push_all(reorder, [7]) == ["7"]


def test_a_packet_held_twice_is_late_and_dropped() -> None:
    reorder = buffer()
    push_all(reorder, [1, 3])

    assert reorder.push(3, "again", 0.0) == []
    assert reorder.late == 1
    assert push_all(reorder, [2]) == ["2", "3"]


def test_a_duplicate_does_not_make_the_depth_full() -> None:
    reorder = buffer()
    push_all(reorder, [1])

    assert push_all(reorder, [3, 4, 3, 4, 3, 4]) == []
    assert push_all(reorder, [2]) == ["2", "3", "4"]


def test_the_sequence_wraps_at_16_bits() -> None:
    sequences = range(65_530, 65_545)

    assert push_all(buffer(), sequences) == [str(n) for n in sequences]


def test_order_comes_back_across_the_wrap() -> None:
    arrived = [65_533, 65_535, 65_534, 65_537, 65_538, 65_536, 65_539]

    reorder = buffer()
    assert push_all(reorder, arrived) == [str(n) for n in sorted(arrived)]
    assert reorder.lost == 0


def test_a_stream_of_many_wraps_loses_nothing() -> None:
    reorder = buffer()

    assert len(push_all(reorder, range(3 * 65_536))) == 3 * 65_536
    assert (reorder.lost, reorder.late) == (0, 0)


def test_a_loss_across_the_wrap_is_counted() -> None:
    reorder = buffer()
    push_all(reorder, [65_534])

    assert push_all(reorder, [65_537, 65_538, 65_539, 65_540])[0] == "65537"
    assert reorder.lost == 2


def test_a_step_below_the_dropout_is_loss() -> None:
    reorder = buffer()
    push_all(reorder, [1])

    assert push_all(reorder, [3001]) == []
    assert reorder.expire(HOLD_S) == [InOrder("3001", 2999)]
    assert reorder.lost == 2999


@pytest.mark.parametrize("first", [3002, 33_000, 65_437])
def test_a_big_step_starts_a_new_sequence(first: int) -> None:
    reorder = buffer()
    push_all(reorder, [1])

    assert reorder.push(first, "new", 0.0) == [InOrder("new", 0)]
    assert names(reorder.push(first + 1, "next", 0.0)) == ["next"]
    assert reorder.lost == 0


def test_what_is_held_comes_before_a_new_sequence() -> None:
    reorder = buffer()
    push_all(reorder, [1, 3])

    assert reorder.push(40_000, "new", 0.0) == [InOrder("3", 1), InOrder("new", 0)]


def test_a_step_back_within_the_misorder_is_late() -> None:
    reorder = buffer()
    push_all(reorder, [1000])

    assert push_all(reorder, [902]) == []
    assert reorder.late == 1


def test_flush_returns_what_is_held_in_order() -> None:
    reorder = buffer()
    push_all(reorder, [1, 6, 3])

    assert reorder.flush() == [InOrder("3", 1), InOrder("6", 2)]
    assert reorder.flush() == []
    assert reorder.next_deadline() is None


def test_after_a_reset_any_sequence_number_is_the_first() -> None:
    reorder = buffer()
    push_all(reorder, [1, 3])

    reorder.reset()

    assert reorder.next_deadline() is None
    assert reorder.push(2, "2", 0.0) == [InOrder("2", 0)]
    assert reorder.lost == 0


@given(
    first=st.integers(0, 65_535),
    arrivals=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 0.05)), min_size=1, max_size=120),
)
def test_whatever_arrives_comes_out_once_in_order_and_in_time(
    first: int, arrivals: list[tuple[int, float]]
) -> None:
    reorder: ReorderBuffer[int] = ReorderBuffer(hold_s=HOLD_S, depth=DEPTH)
    out: list[InOrder[int]] = []
    now = 0.0
    for step, later_s in arrivals:
        now += later_s
        out += reorder.expire(now)
        out += reorder.push((first + step) & 0xFFFF, step, now)
        deadline = reorder.next_deadline()
        assert deadline is None or now < deadline <= now + HOLD_S
    out += reorder.flush()

    steps = [turn.packet for turn in out]
    assert steps == sorted(set(steps))
    assert len(steps) + reorder.late == len(arrivals)
    assert sum(turn.lost_before for turn in out) == reorder.lost
    assert steps[-1] - steps[0] + 1 == len(steps) + reorder.lost

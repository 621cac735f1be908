"""When memory is given back."""

from server import machine
from server.observer import Crowd


def gone(*speakers: int) -> list[int]:
    """At which of these counts a crowd has left."""
    crowd = Crowd()
    return [count for count in speakers if crowd.has_left(count)]


def test_half_of_a_crowd_is_a_crowd_that_left() -> None:
    assert gone(10, 100, 90, 60, 51, 50, 49) == [50]


def test_each_half_counts_once() -> None:
    assert gone(100, 50, 49, 30, 25, 10, 4, 0) == [50, 25, 4]


def test_a_few_who_leave_are_no_crowd() -> None:
    assert gone(19, 10, 0, 19, 0) == []


def test_a_crowd_that_came_again_may_leave_again() -> None:
    assert gone(100, 0, 100, 0) == [0, 0]


def test_memory_can_be_given_back() -> None:
    before = machine.resident_bytes()
    ballast = [bytes(100) for _ in range(200_000)]
    held = machine.resident_bytes()
    del ballast

    machine.give_back()

    assert before < held
    assert machine.resident_bytes() < held

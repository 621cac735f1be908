"""Who may still come in, by measurements made by hand."""

import pytest

from server.admission import Admission, Ceilings, Measured

GB = 1 << 30


def measured(
    *,
    lag_s: float = 0.0,
    cpu: float = 0.0,
    used: int = 1 * GB,
    limit: int = 10 * GB,
    own: int = 100 << 20,
    files: int = 30,
    most_files: int = 20_000,
    speakers: int = 0,
) -> Measured:
    return Measured(lag_s, cpu, used, limit, own, files, most_files, speakers)


def come(admission: Admission) -> bool:
    """Whether someone got in; their answer is made at once."""
    is_in = admission.admit()
    if is_in:
        admission.settle(came=True)
    return is_in


def test_before_anything_is_measured_everyone_comes_in() -> None:
    admission = Admission(Ceilings())
    assert all(admission.admit() for _ in range(1000))


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (measured(lag_s=0.2), "loop_lag"),
        (measured(cpu=0.9), "cpu"),
        (measured(used=9 * GB), "memory"),
        (measured(files=925, most_files=1_024), "files"),
        (measured(speakers=5), "speakers"),
    ],
)
def test_beyond_a_limit_nobody_comes_in_and_the_reason_is_known(now: Measured, reason: str) -> None:
    admission = Admission(Ceilings(speakers=5))
    admission.measure(now)
    assert not admission.admit()
    assert admission.admissible == 0
    assert admission.reason == reason


def test_a_processor_without_a_limit_lets_everyone_in_whatever_is_used_of_it() -> None:
    admission = Admission(Ceilings(cpu=0, speakers=60))
    admission.measure(measured(cpu=1.2, speakers=50))
    assert admission.admissible == 10


def test_what_is_left_is_divided_by_what_a_speaker_costs_here() -> None:
    admission = Admission(Ceilings(cpu=0.85))
    admission.measure(measured(cpu=0.05))
    admission.measure(measured(cpu=0.25, own=(100 + 50) << 20, speakers=100))
    # 0.6 of a core is left, and a speaker costs 0.002 of one
    assert admission.admissible == 300


def test_files_are_counted_as_they_come() -> None:
    admission = Admission(Ceilings())
    admission.measure(measured(files=30, most_files=1_000))
    assert admission.admissible == 217  # of four each, as long as nobody is here
    admission.measure(measured(files=330, most_files=1_000, speakers=50))
    assert admission.admissible == 95


def test_files_of_readers_are_not_charged_to_speakers() -> None:
    admission = Admission(Ceilings())
    admission.measure(measured(files=30, most_files=4_000))
    admission.measure(measured(files=370, most_files=4_000, speakers=10))
    assert admission.admissible == 403


def test_without_a_measurement_nobody_comes_in() -> None:
    admission = Admission(Ceilings())
    admission.measure(measured())
    admission.none_left("files")
    assert not admission.admit()
    assert admission.reason == "files"
    admission.measure(measured())
    assert admission.admit()


def test_memory_limits_too() -> None:
    admission = Admission(Ceilings(memory=0.8))
    admission.measure(measured())
    admission.measure(measured(used=8 * GB - (50 << 20), own=200 << 20, speakers=100, cpu=0.1))
    # 50 MB are left below 80 %, and a speaker has taken 1 MB
    assert admission.admissible == 50


def test_few_speakers_are_taken_to_cost_what_was_assumed() -> None:
    admission = Admission(Ceilings(cpu=0.8))
    admission.measure(measured(cpu=0.4, speakers=1))
    assert admission.admissible == 200


def test_those_admitted_since_the_last_measurement_count() -> None:
    admission = Admission(Ceilings(speakers=12))
    admission.measure(measured(speakers=10))
    assert [come(admission) for _ in range(3)] == [True, True, False]
    admission.measure(measured(speakers=11))
    assert [come(admission) for _ in range(2)] == [True, False]


def test_those_who_wait_for_their_answer_count_until_they_have_it() -> None:
    admission = Admission(Ceilings(speakers=12))
    for second in range(3):
        admission.measure(measured(speakers=11))
        assert [admission.admit() for _ in range(2)] == [second == 0, False]
    admission.settle(came=True)
    assert not admission.admit()

    admission.measure(measured(speakers=12))
    admission.measure(measured(speakers=11))
    assert admission.admit()


def test_who_failed_to_come_leaves_the_place_at_once() -> None:
    admission = Admission(Ceilings(speakers=12))
    admission.measure(measured(speakers=11))
    assert admission.admit()
    assert admission.reason == "speakers"

    admission.settle(came=False)
    assert admission.reason is None
    assert admission.admit()


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (measured(cpu=0.849), "cpu"),
        (measured(used=8 * GB - 1000), "memory"),
    ],
)
def test_where_less_than_a_speaker_is_left_the_reason_is_known(now: Measured, reason: str) -> None:
    admission = Admission(Ceilings())
    admission.measure(now)
    assert (admission.admissible, admission.reason) == (0, reason)
    assert not admission.admit()


def test_whoever_takes_the_last_place_closes_the_door() -> None:
    admission = Admission(Ceilings(cpu=0.8))
    admission.measure(measured(cpu=0.797))
    assert admission.reason is None
    assert come(admission)
    assert admission.reason == "cpu"


def test_a_busy_second_without_a_speaker_is_not_what_the_house_costs() -> None:
    """That of a start, or of many who are about to come."""
    admission = Admission(Ceilings(cpu=0.85))
    for cpu in (0.0, 0.9, 0.05, 0.3):  # at first it is not known
        admission.measure(measured(cpu=cpu))
    admission.measure(measured(cpu=0.25, speakers=100))
    assert admission.admissible == 300


def test_no_speaker_is_taken_to_cost_next_to_nothing() -> None:
    admission = Admission(Ceilings(cpu=0.85))
    admission.measure(measured(cpu=0.24))
    admission.measure(measured(cpu=0.25, speakers=100))
    assert admission.admissible == 600


def test_it_opens_again_when_the_load_has_gone() -> None:
    admission = Admission(Ceilings())
    admission.measure(measured(cpu=0.99))
    assert not admission.admit()
    admission.measure(measured(cpu=0.1))
    assert admission.reason is None
    assert admission.admit()

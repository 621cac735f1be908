import math
import random
from dataclasses import replace

import pytest

from soak.samples import Doing, Reading, Sample
from soak.scenario import Limits
from soak.verdict import (
    Check,
    Outcome,
    after_warm_up,
    figures,
    increase,
    judge,
    judge_calls,
    judge_joins,
    judge_leaving,
    judge_listeners,
    judge_unheard,
    memory_slope,
    slope,
)
from tests.soak.builders import EMPTY, sample, steady

LIMITS = Limits()
WARM_UP_S = 120.0


def outcome(checks: list[Check], what: str) -> Outcome:
    (check,) = [check for check in checks if what in check.what]
    return check.outcome


def growing(hours: float, mb_per_h: float, noise_mb: float = 0.5, seed: int = 1) -> list[Sample]:
    chance = random.Random(seed)
    return [
        replace(s, server_mb=100 + mb_per_h * s.at / 3600 + chance.gauss(0, noise_mb))
        for s in steady(hours)
    ]


def test_a_run_in_which_all_is_as_it_should_be_passes() -> None:
    assert {c.outcome for c in judge(steady(2), LIMITS, WARM_UP_S)} == {Outcome.PASSED}


@pytest.mark.parametrize("mb_per_h", [2.0, 10.0])
def test_a_server_that_grows_fails(mb_per_h: float) -> None:
    checks = judge(growing(4, mb_per_h), LIMITS, WARM_UP_S)
    assert outcome(checks, "growth of the server") is Outcome.FAILED
    assert outcome(checks, "growth of the worker") is Outcome.PASSED


def test_a_server_that_stays_as_it_is_passes_in_spite_of_noise() -> None:
    checks = judge(growing(4, 0.0), LIMITS, WARM_UP_S)
    assert outcome(checks, "growth of the server") is Outcome.PASSED


def test_a_run_too_short_to_tell_says_so_and_does_not_pass() -> None:
    for minutes in (3, 8):
        checks = judge(growing(minutes / 60, 0.0), LIMITS, WARM_UP_S)
        assert outcome(checks, "growth of the server") is Outcome.UNKNOWN


@pytest.mark.slow
def test_the_interval_holds_the_true_slope_nineteen_times_of_twenty() -> None:
    held = 0
    for seed in range(200):
        found = slope([[(s.at / 3600, s.server_mb) for s in growing(2, 3.0, seed=seed)]])
        assert found is not None
        held += found.low <= 3.0 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def wandering(hours: float, mb_per_h: float, seed: int, forgets_within: int) -> list[Sample]:
    """What is above the line stays so for a while, as a heap does that is trimmed now and then."""
    chance, share, away = random.Random(seed), 1 - 1 / forgets_within, 0.0
    samples = []
    for s in steady(hours):
        away = share * away + chance.gauss(0, 0.5 * math.sqrt(1 - share * share))
        samples.append(replace(s, server_mb=100 + mb_per_h * s.at / 3600 + away))
    return samples


@pytest.mark.slow
def test_the_interval_is_wider_where_samples_vouch_for_each_other() -> None:
    held = 0
    for seed in range(200):
        samples = wandering(2, 3.0, seed, forgets_within=50)  # four minutes
        found = slope([[(s.at / 3600, s.server_mb) for s in samples]])
        assert found is not None
        held += found.low <= 3.0 <= found.high
    assert held / 200 >= 0.88


def test_a_worker_that_takes_the_place_of_another_has_a_warm_up_too() -> None:
    def grows_at_first(s: Sample) -> Sample:
        age_s = s.at % 3600
        return replace(s, worker_pid=20 + int(s.at // 3600), worker_mb=20 + min(3, age_s / 300))

    samples = [grows_at_first(s) for s in steady(4)]
    assert outcome(judge(samples, LIMITS, 900.0), "growth of the worker") is Outcome.PASSED
    assert outcome(judge(samples, LIMITS, 60.0), "growth of the worker") is not Outcome.PASSED


def test_a_part_that_was_resumed_is_not_warmed_up_twice() -> None:
    samples = [
        replace(s, part=int(s.at >= 3600), server_pid=10 + int(s.at >= 3600)) for s in steady(2)
    ]
    warm = after_warm_up(samples, 1800.0)
    found = memory_slope(samples, 1800.0)
    assert found == slope(
        [[(s.at / 3600, s.server_mb) for s in warm if s.part == part] for part in (0, 1)]
    )
    assert found is not None


@pytest.mark.slow
@pytest.mark.parametrize("lives_h", [1.0, 4.0])
@pytest.mark.parametrize(("mb_per_h", "expected"), [(0.0, Outcome.PASSED), (3.0, Outcome.FAILED)])
def test_of_a_day_in_which_workers_are_replaced_theirs_is_told(
    lives_h: float, mb_per_h: float, expected: Outcome
) -> None:
    chance = random.Random(1)

    def of_worker(s: Sample) -> Sample:
        number, age_h = divmod(s.at / 3600 + lives_h / 2, lives_h)
        mb = 22 + min(1.0, 3 * age_h) + mb_per_h * age_h + chance.gauss(0, 0.3)
        return replace(s, worker_pid=20 + int(number), worker_mb=mb)

    samples = [of_worker(s) for s in steady(24)]
    assert outcome(judge(samples, LIMITS, 1800.0), "growth of the worker") is expected


def test_growth_before_the_warm_up_is_over_does_not_count() -> None:
    samples = [replace(s, server_mb=100 + 50 * min(1.0, s.at / WARM_UP_S)) for s in growing(4, 0.0)]
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, "growth of the server") is Outcome.PASSED


def test_a_worker_that_was_replaced_by_a_larger_one_has_not_grown() -> None:
    samples = [
        replace(s, worker_pid=20 + int(s.at // 3600), worker_mb=20 + 30 * (s.at // 3600))
        for s in steady(4)
    ]
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, "growth of the worker") is Outcome.PASSED


def test_one_that_grows_between_being_replaced_has_grown() -> None:
    samples = [
        replace(s, worker_pid=20 + int(s.at // 3600), worker_mb=20 + 5 * (s.at % 3600) / 3600)
        for s in steady(4)
    ]
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, "growth of the worker") is Outcome.FAILED


@pytest.mark.parametrize(
    ("what", "last"),
    [
        ("speech dropped", {"lost_s": 720.0}),
        ("failed", {"speakers_failed": 10}),
        ("to each listener once", {"reading": Reading(7200, 21_600, missing=1)}),
        ("to each listener once", {"reading": Reading(7200, 21_600, twice=1)}),
        ("not accounted for", {"ledger_wrong": 1}),
    ],
)
def test_what_is_out_of_order_fails_and_nothing_else_does(
    what: str, last: dict[str, object]
) -> None:
    samples = steady(2)
    samples[-1] = replace(samples[-1], **last)  # type: ignore[arg-type]
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, what) is Outcome.FAILED
    assert [c for c in checks if c.outcome is not Outcome.PASSED] == [
        c for c in checks if what in c.what
    ]


def test_an_engine_that_does_not_come_back_fails_the_run() -> None:
    samples = [s if s.at < 1800 else replace(s, reading=Reading(1800, 5400)) for s in steady(2)]
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, "without a final") is Outcome.FAILED
    samples = [
        s if not 1800 < s.at < 1900 else replace(s, reading=Reading(1800, 5400)) for s in steady(2)
    ]
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "without a final") is Outcome.PASSED


def test_joins_that_failed_before_the_first_sample_count() -> None:
    samples = [replace(s, doing=Doing(joins=50, failed=50)) for s in steady(2)]
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "that failed") is Outcome.FAILED


def test_a_run_without_joins_after_the_first_is_judged_by_those() -> None:
    samples = [replace(s, doing=Doing(joins=100)) for s in steady(2)]
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "that failed") is Outcome.PASSED


def test_a_final_that_came_late_is_not_missing() -> None:
    samples = steady(2)
    middle = len(samples) // 2
    samples[middle] = replace(samples[middle], reading=Reading(3600, 10_799, missing=1))
    checks = judge(samples, LIMITS, WARM_UP_S)
    assert outcome(checks, "to each listener once") is Outcome.PASSED


def test_a_little_speech_dropped_is_within_the_limit() -> None:
    samples = steady(2)
    samples[-1] = replace(samples[-1], lost_s=700.0)
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "speech dropped") is Outcome.PASSED


def test_where_nothing_may_be_dropped_nothing_passes() -> None:
    none = Limits(dropped=0.0)
    assert outcome(judge(steady(2), none, WARM_UP_S), "speech dropped") is Outcome.PASSED


def test_a_server_that_is_not_seen_for_long_fails() -> None:
    samples = [s for s in steady(2) if not 600 < s.at < 640]
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "without a sample") is Outcome.FAILED


def test_a_final_that_the_server_counts_and_nobody_was_told_fails() -> None:
    samples = [replace(s, finals=s.reading.finals + 7) for s in steady(1)]
    assert judge_unheard(samples).outcome is Outcome.PASSED
    samples[-1] = replace(samples[-1], finals=samples[-1].finals + 1)
    assert judge_unheard(samples).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("joins", "outcome"), [(100 + 480, Outcome.PASSED), (100 + 300, Outcome.FAILED)]
)
def test_a_crowd_that_stands_still_fails(joins: int, outcome: Outcome) -> None:
    samples = [replace(s, doing=Doing(joins=joins)) for s in steady(2)]
    assert judge_joins(samples, 100, 5.0).outcome is outcome


@pytest.mark.parametrize(
    ("listeners", "outcome"),
    [
        ([0, 6, 60, 60, 60], Outcome.PASSED),
        ([0, 6, 60, 59, 60], Outcome.FAILED),
        ([0, 0, 0, 0, 0], Outcome.FAILED),
        # so short a run that none had half a minute
        ([0, 60], Outcome.PASSED),
        ([60, 59], Outcome.FAILED),
        ([], Outcome.FAILED),
    ],
)
def test_who_is_not_let_in_to_read_is_missed(listeners: list[int], outcome: Outcome) -> None:
    samples = [sample(15.0 * n, doing=Doing(listeners=k)) for n, k in enumerate(listeners)]
    assert judge_listeners(samples, 60).outcome is outcome


def test_a_run_in_which_nothing_was_said_proves_nothing() -> None:
    checks = judge([sample(0.0), sample(5.0)], LIMITS, 0.0)
    for what in ("speech dropped", "failed", "to each listener once"):
        assert outcome(checks, what) is Outcome.UNKNOWN


def test_what_is_counted_begins_anew_with_each_part() -> None:
    counts = [(0, 0), (0, 70), (1, 0), (1, 5)]
    samples = [sample(5.0 * n, part=p, chunks_dropped=c) for n, (p, c) in enumerate(counts)]
    assert increase(samples, lambda s: s.chunks_dropped) == 75


def test_each_part_has_a_warm_up_of_its_own() -> None:
    samples = [sample(at, part=int(at >= 500)) for at in (0.0, 100.0, 200.0, 500.0, 550.0, 700.0)]
    assert [s.at for s in after_warm_up(samples, WARM_UP_S)] == [200.0, 700.0]


@pytest.mark.parametrize(
    "left", [{"rooms": 1}, {"speakers": 1}, {"tasks": 13}, {"sockets": 11}, {"files": 31}]
)
def test_whatever_is_left_when_all_have_gone_is_named(left: dict[str, int]) -> None:
    (check,) = judge_leaving(EMPTY, replace(EMPTY, **left), 6)  # type: ignore[arg-type]
    assert check.outcome is Outcome.FAILED
    assert check.found == f"1 {next(iter(left))}"


def test_threads_of_the_loops_pool_are_no_remains() -> None:
    (check,) = judge_leaving(EMPTY, replace(EMPTY, threads=EMPTY.threads + 6), 6)
    assert check.outcome is Outcome.PASSED
    (check,) = judge_leaving(EMPTY, replace(EMPTY, threads=EMPTY.threads + 7), 6)
    assert check.found == "1 threads"


def test_figures_are_of_the_time_after_the_warm_up() -> None:
    samples = [
        replace(
            s,
            server_cpu_s=0.3 * s.at,
            speakers=50 if s.at < WARM_UP_S else 100,
            first_text=((0.5, s.at), (1.0, 2 * s.at), (float("inf"), 2 * s.at)),
            worker_pid=20 if s.at < 1800 else 21,
        )
        for s in steady(1)
    ]
    found = figures(samples, WARM_UP_S)
    assert found.speakers == 100
    assert found.server_cores == pytest.approx(0.3)
    assert (found.first_text_p50_s, found.first_text_p95_s) == pytest.approx((0.5, 0.95))
    assert found.worker_restarts == 1
    assert found.joins == 3600 - WARM_UP_S


def test_a_run_that_ended_before_its_warm_up_has_no_figures() -> None:
    with pytest.raises(ValueError, match="warm-up"):
        figures(steady(0.01), WARM_UP_S)


def with_calls(**last: int) -> list[Sample]:
    """An hour of calls in which all is as it should be, but for `last`."""
    samples = [
        replace(s, in_calls=Reading(int(s.at), 2 * int(s.at)), doing=replace(s.doing, calls=6))
        for s in steady(1)
    ]
    at_last = replace(samples[-1].in_calls, **last)
    return [*samples[:-1], replace(samples[-1], in_calls=at_last)]


def test_calls_in_which_all_were_told_all_pass() -> None:
    assert {c.outcome for c in judge_calls(with_calls())} == {Outcome.PASSED}
    assert "7200 delivered" in judge_calls(with_calls())[0].found


@pytest.mark.parametrize("last", [{"missing": 1}, {"twice": 1}, {"missing": 1, "delivered": 0}])
def test_a_final_that_went_wrong_in_a_call_fails(last: dict[str, int]) -> None:
    assert outcome(judge_calls(with_calls(**last)), "in a call once") is Outcome.FAILED


def test_calls_in_which_nothing_is_said_do_not_pass() -> None:
    checks = judge_calls(steady(1))
    assert outcome(checks, "in a call once") is Outcome.UNKNOWN
    assert outcome(checks, "without a final in calls") is Outcome.FAILED


def test_a_call_that_could_not_be_opened_is_an_error() -> None:
    samples = steady(0.1)
    few = replace(samples[-1].doing, joins=100, calls=20, calls_failed=1)
    samples = [*samples[:-1], replace(samples[-1], doing=few)]
    assert outcome(judge(samples, LIMITS, WARM_UP_S), "that failed") is Outcome.FAILED


def test_a_call_that_the_server_is_still_in_is_left() -> None:
    (check,) = judge_leaving(EMPTY, replace(EMPTY, calls=1), 6)
    assert check.found == "1 calls"

from hypothesis import given
from hypothesis import strategies as st

from transcriber.breaker import Breaker


def failed(*at: float) -> list[float]:
    """How long is waited after each failure."""
    breaker = Breaker()
    return [breaker.failed(now) for now in at]


def test_each_failure_in_a_row_doubles_the_wait() -> None:
    assert failed(0.0, 100.0, 200.0, 300.0) == [0.1, 0.2, 0.4, 0.8]


def test_the_wait_grows_to_ten_seconds_and_no_further() -> None:
    waits = failed(*(100.0 * n for n in range(2000)))
    assert waits[6:9] == [6.4, 10.0, 10.0]
    assert max(waits) == waits[-1] == 10.0


def test_one_that_worked_makes_the_next_wait_short_again() -> None:
    breaker = Breaker()
    for now in (0.0, 100.0, 200.0):
        breaker.failed(now)
    breaker.worked()
    assert breaker.failed(300.0) == 0.1


def test_five_failures_within_a_minute_open_it() -> None:
    breaker = Breaker()
    for now in (0.0, 15.0, 30.0, 45.0):
        breaker.failed(now)
        assert not breaker.is_open(now)
    assert breaker.failed(60.0) == 20.0
    assert breaker.is_open(60.0)
    assert not breaker.is_open(60.1)


def test_five_failures_in_more_than_a_minute_do_not() -> None:
    assert failed(0.0, 15.0, 30.0, 45.0, 60.1)[-1] == 1.6


def test_one_that_is_ready_and_dies_again_and_again_opens_it_too() -> None:
    breaker = Breaker()
    for now in range(5):
        breaker.worked()
        wait_s = breaker.failed(float(now))
    assert wait_s == 20.0
    assert breaker.is_open(4.0)


def test_it_closes_when_the_failures_are_long_ago() -> None:
    breaker = Breaker()
    for now in (0.0, 1.0, 2.0, 3.0, 4.0):
        breaker.failed(now)
    breaker.worked()
    assert breaker.failed(64.5) == 0.1


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=40))
def test_every_wait_is_between_a_tenth_and_twenty_seconds(steps: list[tuple[float, bool]]) -> None:
    breaker, now, failures = Breaker(), 0.0, list[float]()
    for passed, works in steps:
        now += passed
        if works:
            breaker.worked()
        failures.append(now)
        wait_s = breaker.failed(now)
        recent = [at for at in failures if now - at <= 60.0]
        assert breaker.is_open(now) == (len(recent) >= 5)
        assert (wait_s == 20.0) if breaker.is_open(now) else (0.1 <= wait_s <= 10.0)

"""When cycles are collected, and when memory is given back."""

import asyncio
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator

import pytest

from server.app import serve
from server.config import Settings
from server.housekeeping import (
    COLLECT_AT_LAST_S,
    COLLECT_EVERY_S,
    FEW,
    GIVE_BACK_EVERY_S,
    Crowd,
    Housekeeping,
)
from transcriber import allocator

MANY = FEW + 1


def gone(*speakers: int) -> list[int]:
    """After how many counts a crowd has left."""
    crowd = Crowd()
    return [n for n, count in enumerate(speakers, 1) if crowd.has_left(count)]


def test_half_of_a_crowd_is_a_crowd_that_left() -> None:
    assert gone(10, 100, 90, 60, 51, 50, 49) == [6]


def test_each_half_counts_once() -> None:
    assert gone(100, 50, 49, 30, 25, 10, 4) == [2, 5, 7]


def test_a_few_who_leave_are_no_crowd() -> None:
    assert gone(19, 10, 0, 19, 0, 1) == []


def test_the_last_to_leave_are_a_crowd_however_few() -> None:
    assert gone(1, 0, 0, 0) == [3]
    assert gone(100, 50, 19, 0, 0, 0) == [2, 3, 5]


def test_a_house_that_was_always_empty_has_no_crowd() -> None:
    assert gone(0, 0, 0) == []


def test_a_crowd_that_came_again_may_leave_again() -> None:
    assert gone(100, 0, 0, 100, 0, 0) == [2, 5]


class Ring:
    """Freed by a collection only."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Thread]]:
    """The threads in which memory was given back; collections are by hand."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(allocator, "give_back", lambda: threads.append(threading.current_thread()))
    gc.disable()
    try:
        yield threads
    finally:
        gc.enable()


async def collections(*looks: tuple[float, int]) -> list[float]:
    """At which of these times, with as many speakers, there was a collection."""
    speakers = 0
    keeping = Housekeeping(lambda: speakers, 0.0)
    collected: list[float] = []
    for now, speakers in looks:  # noqa: B007
        ring = weakref.ref(Ring())
        await keeping.tidy(now)
        if ring() is None:
            collected.append(now)
    return collected


async def test_memory_is_given_back_now_and_then_whoever_is_there(
    trims: list[threading.Thread],
) -> None:
    every = GIVE_BACK_EVERY_S
    looks = [(every - 1, MANY), (every, MANY), (every + 1, MANY), (2 * every, MANY)]
    assert await collections(*looks) == []
    assert len(trims) == 2
    assert threading.main_thread() not in trims


async def test_few_speakers_let_a_collection_pass_each_minute(
    trims: list[threading.Thread],
) -> None:
    every = COLLECT_EVERY_S
    looks = [(every - 1, FEW), (every, FEW), (every + 1, FEW), (2 * every, FEW)]
    assert await collections(*looks) == [every, 2 * every]


async def test_many_speakers_put_it_off_but_not_for_ever(trims: list[threading.Thread]) -> None:
    last = COLLECT_AT_LAST_S
    looks = [(COLLECT_EVERY_S, MANY), (last - 1, MANY), (last, MANY), (last + 1, MANY)]
    assert await collections(*looks) == [last]


async def test_those_who_leave_give_memory_back_in_a_thread(
    trims: list[threading.Thread],
) -> None:
    assert await collections((1.0, 5), (2.0, 0), (3.0, 0), (4.0, 0)) == [3.0]
    (thread,) = trims
    assert thread is not threading.main_thread()


async def test_while_many_stay_memory_is_given_back_without_a_collection(
    trims: list[threading.Thread],
) -> None:
    assert await collections((1.0, 4 * MANY), (2.0, MANY)) == []
    assert len(trims) == 1


async def test_it_looks_by_itself(trims: list[threading.Thread]) -> None:
    counts = iter([1, 0])
    task = asyncio.create_task(Housekeeping(lambda: next(counts, 0), 0.0).run(), name="keeping")
    async with asyncio.timeout(10):
        while not trims:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})


async def test_a_server_that_serves_collects_by_hand(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = gc.get_threshold()
    serving = asyncio.create_task(serve(settings), name="serve")
    async with asyncio.timeout(20):
        while "serves at" not in capsys.readouterr().out:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[2] > 1_000_000
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before

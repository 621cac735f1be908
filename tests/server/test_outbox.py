import asyncio

import pytest

from server.outbox import FINALS_AT_MOST, LINES_AT_MOST, SLOW_AFTER_S, Outbox


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def everything(outbox: Outbox) -> list[str]:
    """What is in line, and nothing that is still to come."""
    return [await anext(outbox) for _ in range(len(outbox))]


async def test_lines_come_in_their_order() -> None:
    outbox = Outbox()
    for text in ("one", "two", "three"):
        outbox.put(text)
    assert await everything(outbox) == ["one", "two", "three"]


async def test_a_newer_interim_takes_the_place_of_the_waiting_one() -> None:
    outbox = Outbox()
    outbox.put("we", replaces="p1-1", is_final=False)
    outbox.put("hello", replaces="p2-1", is_final=False)
    outbox.put("we meet", replaces="p1-1", is_final=False)
    assert await everything(outbox) == ["hello", "we meet"]
    assert outbox.skipped == 1


async def test_an_interim_that_was_taken_is_not_replaced() -> None:
    outbox = Outbox()
    outbox.put("we", replaces="p1-1", is_final=False)
    assert await anext(outbox) == "we"
    outbox.put("we meet", replaces="p1-1", is_final=False)
    assert await anext(outbox) == "we meet"
    assert outbox.skipped == 0


async def test_a_final_makes_the_waiting_interim_pointless() -> None:
    outbox = Outbox()
    outbox.put("we", replaces="p1-1", is_final=False)
    outbox.put("hello", replaces="p2-1", is_final=False)
    outbox.drop("p1-1")
    outbox.put("We meet.")
    assert await everything(outbox) == ["hello", "We meet."]
    assert outbox.skipped == 1


async def test_dropping_what_does_not_wait_is_nothing() -> None:
    outbox = Outbox()
    outbox.drop("p1-1")
    assert (len(outbox), outbox.skipped) == (0, 0)


async def test_interims_of_more_speakers_than_are_held_are_skipped() -> None:
    outbox = Outbox()
    for speaker in range(80):
        outbox.put("we", replaces=f"p{speaker}-1", is_final=False)
    assert len(outbox) == 50
    assert outbox.skipped == 30
    assert outbox.reason is None


async def test_who_does_not_take_their_finals_for_long_is_a_slow_reader() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    for number in range(FINALS_AT_MOST):
        outbox.put(f"{number}")
    clock.now += SLOW_AFTER_S + 0.1
    assert (outbox.reason, len(outbox)) == (None, 50)
    outbox.put("one too many")
    assert (outbox.reason, len(outbox)) == ("slow_reader", 0)
    outbox.put("later")
    with pytest.raises(StopAsyncIteration):
        await anext(outbox)


async def test_a_burst_makes_no_slow_reader() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    for number in range(20 * FINALS_AT_MOST):
        outbox.put(f"{number}")
    clock.now += SLOW_AFTER_S - 1
    assert await anext(outbox) == "0"
    clock.now += SLOW_AFTER_S - 1
    outbox.put("and on")
    assert outbox.reason is None


async def test_what_waits_is_bounded_however_new_it_is() -> None:
    outbox = Outbox(Clock())
    for number in range(LINES_AT_MOST + 1):
        outbox.put(f"{number}")
    assert (outbox.reason, len(outbox)) == ("slow_reader", 0)


async def test_the_newest_of_a_key_is_kept_and_counts_once() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    for number in range(10 * FINALS_AT_MOST):
        outbox.put(f"{number}", replaces="updated p1")
        clock.now += 1
    assert outbox.reason is None
    assert await everything(outbox) == ["499"]


async def test_who_takes_their_finals_may_have_any_number() -> None:
    outbox = Outbox()
    for number in range(4 * FINALS_AT_MOST):
        outbox.put(f"{number}")
        if number >= 10:
            assert await anext(outbox) == f"{number - 10}"
    assert outbox.reason is None


async def test_interims_do_not_make_a_slow_reader() -> None:
    outbox = Outbox()
    for _ in range(40):
        outbox.put("final")
    for revision in range(500):
        outbox.put(f"{revision}", replaces="p1-1", is_final=False)
    assert outbox.reason is None
    assert (await everything(outbox))[-1] == "499"


async def test_a_backlog_does_not_count_against_the_bound() -> None:
    outbox = Outbox()
    outbox.put_backlog([f"missed {number}" for number in range(300)])
    for number in range(FINALS_AT_MOST):
        outbox.put(f"new {number}")
    assert outbox.reason is None
    lines = await everything(outbox)
    assert (lines[0], lines[299], lines[-1]) == ("missed 0", "missed 299", "new 49")


async def test_a_backlog_that_was_read_leaves_the_bound_as_it_was() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    outbox.put_backlog([f"missed {number}" for number in range(300)])
    await everything(outbox)
    outbox.put("new")
    clock.now += SLOW_AFTER_S + 1
    for number in range(FINALS_AT_MOST):
        outbox.put(f"new {number}")
    assert outbox.reason == "slow_reader"


async def test_after_the_end_what_is_in_line_still_comes_and_nothing_new() -> None:
    outbox = Outbox()
    outbox.put("last words")
    outbox.end("ended")
    outbox.put("too late")
    assert [text async for text in outbox] == ["last words"]
    assert outbox.reason == "ended"


async def test_a_last_word_comes_last_and_reaches_a_slow_reader_too() -> None:
    for count in (1, LINES_AT_MOST + 1):
        outbox = Outbox(Clock())
        for number in range(count):
            outbox.put(f"{number}")
        outbox.end("slow_reader", "bye")
        lines = [text async for text in outbox]
        assert lines == (["0", "bye"] if count == 1 else ["bye"])


async def test_the_first_reason_stays() -> None:
    outbox = Outbox()
    outbox.end("resumed")
    outbox.end("ended")
    assert outbox.reason == "resumed"


async def test_a_waiting_reader_is_woken_by_a_line_and_by_the_end() -> None:
    outbox = Outbox()
    read: list[str] = []

    async def read_all() -> None:
        read.extend([text async for text in outbox])

    reading = asyncio.create_task(read_all())
    await asyncio.sleep(0)
    outbox.put("final")
    await asyncio.sleep(0)
    outbox.put("interim", replaces="p1-1", is_final=False)
    await asyncio.sleep(0)
    outbox.end("ended")
    async with asyncio.timeout(20):
        await reading
    assert read == ["final", "interim"]


async def test_a_reader_cancelled_while_waiting_loses_nothing() -> None:
    outbox = Outbox()
    reading = asyncio.ensure_future(anext(outbox))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    outbox.put("final")
    assert await anext(outbox) == "final"

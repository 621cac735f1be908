"""`Feed`: never waits for its reader, says what it dropped, ends when it is drained."""

import asyncio

import pytest

from media.feed import Feed, FeedEnded


def feed(*items: str, bound: int = 3) -> Feed[str]:
    filled: Feed[str] = Feed(bound)
    for item in items:
        filled.put(item)
    return filled


async def until_it_waits() -> None:
    """Let other tasks run until they wait for something that has not come."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_items_come_out_in_their_order() -> None:
    filled = feed("a", "b", "c")

    assert [await filled.get() for _ in range(3)] == ["a", "b", "c"]


def test_a_full_feed_hands_back_its_oldest_item() -> None:
    filled = feed("a", "b", "c")

    assert filled.put("d") == "a"
    assert filled.put("e") == "b"
    assert filled.dropped == 2
    assert len(filled) == 3


def test_a_feed_with_room_drops_nothing() -> None:
    filled = feed("a", "b")

    assert filled.put("c") is None
    assert filled.dropped == 0


async def test_the_reader_sees_what_follows_a_dropped_item() -> None:
    filled = feed("a", "b", "c", "d")

    assert await filled.get() == "b"


def test_fullness_is_a_share_of_the_bound() -> None:
    assert feed("a", bound=4).fullness == 0.25
    assert feed("a", "b", "c", bound=3).fullness == 1.0


async def test_a_waiting_reader_gets_the_item_when_it_comes() -> None:
    empty = feed()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(empty.get())
        await until_it_waits()
        assert not reader.done()
        empty.put("a")

    assert reader.result() == "a"


async def test_the_end_lets_the_reader_drain_what_is_there() -> None:
    filled = feed("a", "b")

    filled.end()

    assert filled.is_ended
    assert [item async for item in filled] == ["a", "b"]
    with pytest.raises(FeedEnded):
        await filled.get()


async def test_the_end_reaches_a_waiting_reader() -> None:
    empty = feed()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(_read_all(empty))
        await until_it_waits()
        empty.end()

    assert reader.result() == []


async def test_after_the_end_nothing_more_is_taken_in() -> None:
    filled = feed("a")
    filled.end()
    filled.end()

    assert filled.put("b") is None
    assert filled.dropped == 0
    assert [item async for item in filled] == ["a"]


async def test_a_reader_cancelled_while_it_waits_loses_nothing() -> None:
    empty = feed()
    reader = asyncio.create_task(empty.get())
    await until_it_waits()

    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    empty.put("a")

    assert await empty.get() == "a"


async def test_a_reader_cancelled_when_its_item_has_come_loses_nothing() -> None:
    empty = feed()
    reader = asyncio.create_task(empty.get())
    await until_it_waits()

    empty.put("a")  # wakes the reader, which has not run yet
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert len(empty) == 1
    assert await empty.get() == "a"


async def test_a_reader_whose_time_is_over_reads_on_later() -> None:
    empty = feed()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await empty.get()
    empty.put("a")
    empty.put("b")

    assert [await empty.get(), await empty.get()] == ["a", "b"]


async def test_putting_twice_before_the_reader_runs_wakes_it_once() -> None:
    empty = feed()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(empty.get())
        await until_it_waits()
        empty.put("a")
        empty.put("b")

    assert reader.result() == "a"
    assert await empty.get() == "b"


async def _read_all(items: Feed[str]) -> list[str]:
    return [item async for item in items]


async def test_a_reader_that_is_roused_gets_what_is_there_first() -> None:
    feed: Feed[int] = Feed(3)
    feed.put(1)
    feed.rouse()
    feed.rouse()

    assert [await feed.get(), await feed.get()] == [1, None]
    feed.put(2)
    assert await feed.get() == 2


async def test_a_reader_that_waits_is_roused() -> None:
    feed: Feed[int] = Feed(3)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(feed.get())
        await asyncio.sleep(0)
        feed.rouse()

    assert waiting.result() is None


async def test_to_be_roused_ends_no_iteration_and_outlives_no_end() -> None:
    feed: Feed[int] = Feed(3)
    feed.rouse()
    feed.put(1)
    feed.end()

    assert [item async for item in feed] == [1]
    feed.rouse()
    with pytest.raises(FeedEnded):
        await feed.get()

import asyncio
import itertools
import logging
import sqlite3
import threading
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import Pool

from server import store as store_module
from server import store_schema
from server.store import (
    BATCH,
    BOUND,
    EndedRoom,
    RoomRecord,
    Store,
    StoredEvent,
    StoreError,
    StoreHealth,
)
from transcriber.transcript import Transcript, TranscriptGap, TranscriptSegment, TranscriptWord

T = TypeVar("T")
OPENED = 1_760_000_000.0
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH_S", 0.02)
    monkeypatch.setattr(store_module, "RETRY_S", 0.02)
    monkeypatch.setattr(store_schema, "BUSY_S", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


class Witness:
    """Sees the store's health after each attempt to write."""

    def __init__(self) -> None:
        self.seen: list[StoreHealth] = []
        self._changed = asyncio.Event()

    def __call__(self, health: StoreHealth) -> None:
        self.seen.append(health)
        self._changed.set()

    async def failures(self, count: int) -> None:
        await self.until(lambda _: sum(not health.ok for health in self.seen) >= count)

    async def until(self, fact: Callable[[StoreHealth], bool]) -> StoreHealth:
        async with asyncio.timeout(PATIENCE_S):
            while not (self.seen and fact(self.seen[-1])):
                self._changed.clear()
                await self._changed.wait()
        return self.seen[-1]


def all_written(health: StoreHealth) -> bool:
    return health.ok and health.pending == 0


@asynccontextmanager
async def writing(path: Path, witness: Witness | None = None) -> AsyncIterator[Store]:
    async with Store.open(path, witness) as store, asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        yield store
        await store.close()


def room(name: str = "standup", *, at_s: float = 0.0) -> RoomRecord:
    return RoomRecord(id=f"{name}-{at_s}", name=name, started_at=OPENED + at_s, language="en")


def final(seq: int, text: str = "we meet in Paris", *, participant: str = "p1") -> StoredEvent:
    return StoredEvent(
        seq,
        TranscriptSegment(
            segment=f"{participant}-{seq}",
            participant=participant,
            name="Ada",
            start=float(seq),
            end=seq + 1.5,
            text=text,
            language="en",
            words=(TranscriptWord("we", seq + 0.1, seq + 0.4, 0.93),),
            spoken_at=OPENED + seq,
            revision=4,
        ),
    )


def said(final: StoredEvent) -> TranscriptSegment:
    assert isinstance(final.event, TranscriptSegment)
    return final.event


def missed(gap: StoredEvent) -> TranscriptGap:
    assert isinstance(gap.event, TranscriptGap)
    return gap.event


def lost(seq: int, *, lasting_s: float = 2.0) -> StoredEvent:
    return StoredEvent(seq, TranscriptGap("p1", float(seq), seq + lasting_s, "network"))


def record(store: Store, room_id: str, *events: StoredEvent) -> None:
    for event in events:
        if isinstance(event.event, TranscriptSegment):
            store.segment(room_id, event.seq, event.event)
        else:
            store.gap(room_id, event.seq, event.event, OPENED + event.seq)


def begin(store: Store, started: RoomRecord) -> str:
    store.room_started(started)
    store.participant_joined(started.id, "p1", "Ada", started.started_at)
    return started.id


async def stored_texts(path: Path, room_name: str = "standup") -> list[str]:
    async with Store.open(path) as store:
        transcript = await store.transcript(room_name)
    return [segment.text for segment in transcript.segments] if transcript else []


# what was recorded is read back


async def test_what_was_recorded_is_read_back_after_a_restart(path: Path) -> None:
    async with writing(path) as store:
        room_id = begin(store, room())
        store.participant_joined(room_id, "p2", "Bo", OPENED + 1)
        record(store, room_id, final(3), lost(5), final(4, "yes", participant="p2"))
        store.participant_left(room_id, "p2", OPENED + 8)
        store.room_ended(room_id, OPENED + 9)
    async with Store.open(path) as store:
        transcript = await store.transcript("standup")
    assert transcript == Transcript(
        room="standup",
        started_at=OPENED,
        ended_at=OPENED + 9,
        language="en",
        participants=(("p1", "Ada"), ("p2", "Bo")),
        segments=(said(final(3)), said(final(4, "yes", participant="p2"))),
        gaps=(missed(lost(5)),),
    )


async def test_a_room_nobody_knows_has_no_transcript(path: Path) -> None:
    async with Store.open(path) as store:
        assert await store.transcript("standup") is None


async def test_a_transcript_has_what_was_not_written_yet(path: Path) -> None:
    async with Store.open(path) as store:
        room_id = begin(store, room())
        record(store, room_id, final(1), lost(2))
        assert store.health.pending == 4
        live = await store.transcript("standup")
        store.room_ended(room_id, OPENED + 60)
        ended = await store.transcript("standup")
    assert live is not None
    assert live.segments == (final(1).event,)
    assert live.gaps == (lost(2).event,)
    assert live.participants == (("p1", "Ada"),)
    assert live.ended_at is None
    assert ended is not None
    assert ended.ended_at == OPENED + 60


async def test_a_transcript_never_misses_a_final_while_it_is_being_written(path: Path) -> None:
    async with writing(path) as store:
        room_id = begin(store, room())
        for seq in range(3 * BATCH):
            record(store, room_id, final(seq))
            if seq % 20 == 0:
                transcript = await store.transcript("standup")
                assert transcript is not None
                assert len(transcript.segments) == seq + 1


async def test_the_latest_room_of_a_name_is_the_one_exported(path: Path) -> None:
    async with writing(path) as store:
        for at_s, text in ((0.0, "first meeting"), (3600.0, "second meeting")):
            room_id = begin(store, room(at_s=at_s))
            record(store, room_id, final(1, text))
            store.room_ended(room_id, OPENED + at_s + 60)
        record(store, begin(store, room("other", at_s=7200)), final(1, "another room"))
    assert await stored_texts(path) == ["second meeting"]


@pytest.mark.parametrize("event", [final(1), lost(1)], ids=["segment", "gap"])
async def test_a_meeting_stays_exported_when_its_name_is_opened_again(
    path: Path, event: StoredEvent
) -> None:
    async with Store.open(path) as store:
        record(store, begin(store, room()), event)
        begin(store, room(at_s=3600))
        waiting = await store.transcript("standup")
    async with Store.open(path) as store:
        stored = await store.transcript("standup")
        record(store, room(at_s=3600).id, final(1, "second meeting"))
        spoken_in = await store.transcript("standup")
    assert waiting is not None
    assert stored is not None
    assert spoken_in is not None
    assert (waiting.started_at, stored.started_at) == (OPENED, OPENED)
    assert (*stored.segments, *stored.gaps) == (event.event,)
    assert [segment.text for segment in spoken_in.segments] == ["second meeting"]


async def test_of_rooms_in_which_nothing_was_said_the_newest_is_exported(path: Path) -> None:
    async with writing(path) as store:
        for at_s in (0.0, 7200.0, 3600.0):
            begin(store, room(at_s=at_s))
    async with Store.open(path) as store:
        begin(store, room(at_s=60))
        transcript = await store.transcript("standup")
    assert transcript is not None
    assert transcript.started_at == OPENED + 7200


async def test_segments_come_in_the_order_in_which_they_were_spoken(path: Path) -> None:
    async with writing(path) as store:
        begin(store, room())
        spoken_second, spoken_first = final(20, "second").event, final(10, "first").event
        record(store, room().id, StoredEvent(1, spoken_second), StoredEvent(2, spoken_first))
    assert await stored_texts(path) == ["first", "second"]


async def test_a_participant_who_comes_back_is_listed_once_by_the_last_name(path: Path) -> None:
    async with writing(path) as store:
        room_id = begin(store, room())
        store.participant_left(room_id, "p1", OPENED + 5)
        store.participant_joined(room_id, "p1", "Ada L.", OPENED + 9)
    async with Store.open(path) as store:
        transcript = await store.transcript("standup")
    assert transcript is not None
    assert transcript.participants == (("p1", "Ada L."),)
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT left_at FROM participant").fetchall() == [(None,)]
    reader.close()


async def test_a_speaker_is_a_participant_even_if_their_coming_was_not_recorded(path: Path) -> None:
    async with writing(path) as store:
        record(store, begin(store, room()), final(1, participant="p2"))
        transcript = await store.transcript("standup")
    assert transcript is not None
    assert transcript.participants == (("p1", "Ada"), ("p2", "Ada"))


async def test_events_after_a_seq_come_from_the_file_and_from_memory_in_order(path: Path) -> None:
    witness = Witness()
    async with Store.open(path, witness) as store:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(store.run())
            room_id = begin(store, room())
            record(store, room_id, final(2), lost(3), final(5), lost(8))
            await witness.until(all_written)
            writer.cancel()
        record(store, room_id, final(9), lost(10), final(11))
        assert await store.finals_after(room_id, 2, 4) == [lost(3), final(5), lost(8), final(9)]
        assert await store.finals_after(room_id, 9, 100) == [lost(10), final(11)]
        assert await store.finals_after(room_id, 11, 100) == []
        assert await store.finals_after("another", -1, 100) == []


async def test_recording_the_same_event_twice_stores_it_once(path: Path) -> None:
    for _ in range(2):
        async with writing(path) as store:
            record(store, begin(store, room()), final(1), lost(2))
        assert store.health.lost == 0
    async with Store.open(path) as store:
        assert await store.finals_after(room().id, -1, 100) == [final(1), lost(2)]


async def test_ended_rooms_are_listed_the_last_one_first(path: Path) -> None:
    witness = Witness()
    async with writing(path, witness) as store:
        for at_s in (0.0, 3600.0, 7200.0):
            room_id = begin(store, room(at_s=at_s))
            record(store, room_id, final(1), final(2), lost(3), lost(6, lasting_s=0.5))
            if at_s < 7200.0:
                store.room_ended(room_id, OPENED + at_s + 60)
        await witness.until(all_written)
        ended = await store.ended_rooms()
        last = await store.ended_rooms(limit=1)
    assert [shown.id for shown in ended] == [room(at_s=3600.0).id, room(at_s=0.0).id]
    assert last == ended[:1]
    assert ended[1] == EndedRoom(
        id=room().id,
        name="standup",
        started_at=OPENED,
        ended_at=OPENED + 60,
        participants=("Ada",),
        segments=2,
        lost_s=2.5,
    )


async def test_an_ended_room_is_found_by_its_name_the_last_one_first(path: Path) -> None:
    async with writing(path) as store:
        for name, at_s in (("standup", 0.0), ("standup", 3600.0), ("other", 7200.0)):
            record(store, begin(store, room(name, at_s=at_s)), final(1))
            store.room_ended(room(name, at_s=at_s).id, OPENED + at_s + 60)
    async with Store.open(path) as store:
        _other, last, _first = await store.ended_rooms()
        assert last.id == room(at_s=3600.0).id
        assert await store.ended_room("standup") == last
        assert await store.ended_room("nowhere") is None
        begin(store, room("live"))
        assert await store.ended_room("live") is None


async def test_a_room_left_open_by_a_crash_is_ended_at_its_last_known_moment(path: Path) -> None:
    async with writing(path) as store:
        begin(store, room("silent"))
        room_id = begin(store, room())
        store.participant_left(room_id, "p1", OPENED + 9)
        record(store, room_id, lost(7), final(10))
    async with Store.open(path) as store:
        ended = {shown.name: shown.ended_at for shown in await store.ended_rooms()}
    assert ended == {"silent": OPENED, "standup": OPENED + 11.5}


async def test_many_records_are_written_without_waiting_for_the_interval(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH_S", 10 * PATIENCE_S)
    witness = Witness()
    async with writing(path, witness) as store:
        record(store, begin(store, room()), *(final(seq) for seq in range(2 * BATCH)))
        await witness.until(lambda health: health.pending < BATCH)


async def test_a_store_with_nothing_to_write_leaves_the_disk_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH_S", 0.0)
    witness = Witness()
    async with writing(path, witness) as store:
        begin(store, room())
        await witness.until(all_written)
        for _ in range(20):
            await store.transcript("standup")
    assert len(witness.seen) == 1


# bad days


@asynccontextmanager
async def locked_by_another(path: Path) -> AsyncIterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


class Disk:
    """A disk that can be full: SQLite then says what it says when there is no space left."""

    most_pages = 1_000_000

    def checkout(self, connection: sa.engine.interfaces.DBAPIConnection, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {self.most_pages}")
        cursor.close()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    sa.event.listen(Pool, "checkout", disk.checkout)
    yield disk
    sa.event.remove(Pool, "checkout", disk.checkout)


def log_entries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [entry for entry in caplog.records if entry.name == "roomscribe.store"]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.message for entry in log_entries(caplog)]


LONG = "a long sentence " * 2000


async def test_a_full_disk_is_said_and_writing_resumes_with_nothing_lost(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness()
    async with writing(path, witness) as store:
        room_id = begin(store, room())
        record(store, room_id, final(0, LONG))
        await witness.until(all_written)
        disk.most_pages = 1
        record(store, room_id, *(final(seq, LONG) for seq in range(1, 10)))
        assert await witness.until(lambda health: not health.ok) == StoreHealth(
            ok=False, reason="disk_full", pending=9, lost=0
        )
        record(store, room_id, final(10, LONG))
        transcript = await store.transcript("standup")
        assert transcript is not None
        assert len(transcript.segments) == 11
        disk.most_pages = 1_000_000
        assert (await witness.until(all_written)).lost == 0
    assert await stored_texts(path) == [LONG] * 11
    assert messages(caplog) == ["the store cannot write, and tries again", "the store writes again"]


async def test_a_locked_file_is_said_and_writing_resumes_with_nothing_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness()
    async with writing(path, witness) as store:
        async with locked_by_another(path):
            room_id = begin(store, room())
            record(store, room_id, final(1), final(2))
            health = await witness.until(lambda health: not health.ok)
            assert (health.reason, health.pending, health.lost) == ("locked", 4, 0)
            assert [event.seq for event in await store.finals_after(room_id, 0, 10)] == [1, 2]
            await witness.failures(3)
        await witness.until(all_written)
    assert len(await stored_texts(path)) == 2
    assert messages(caplog) == ["the store cannot write, and tries again", "the store writes again"]


async def test_beyond_its_bound_the_queue_drops_the_oldest_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness()
    async with Store.open(path, witness) as store:
        room_id = begin(store, room())
        record(store, room_id, *(final(seq) for seq in range(BOUND + 5)))
        assert store.health == StoreHealth(ok=False, reason="overflow", pending=BOUND, lost=7)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run())
            assert (await witness.until(all_written)).lost == 7
            await store.close()
    async with Store.open(path) as store:
        stored = await store.finals_after(room_id, -1, 2 * BOUND)
    assert [event.seq for event in stored] == list(range(7, BOUND + 5))
    assert messages(caplog) == [
        "the store's queue is full, the oldest is dropped",
        "the store writes again",
    ]
    assert [getattr(entry, "lost", None) for entry in log_entries(caplog)] == [None, 7]


@pytest.mark.parametrize(
    "refused",
    [
        final(5, "half a character \ud800"),
        final(2**70),
        StoredEvent(5, TranscriptGap("p1", float("nan"), 1.0, "network")),
    ],
    ids=["surrogate", "huge", "nan"],
)
async def test_a_record_that_cannot_be_stored_costs_no_other(
    path: Path, caplog: pytest.LogCaptureFixture, refused: StoredEvent
) -> None:
    witness = Witness()
    async with writing(path, witness) as store:
        record(store, begin(store, room()), final(1), final(2), refused, final(6), final(7))
        health = await witness.until(all_written)
        assert (health.ok, health.lost) == (True, 1)
    assert len(await stored_texts(path)) == 4
    assert messages(caplog) == ["a record could not be stored"]


async def test_a_final_of_an_unknown_room_costs_no_other(path: Path) -> None:
    witness = Witness()
    async with writing(path, witness) as store:
        record(store, "unknown", final(1))
        record(store, begin(store, room()), final(1))
        assert (await witness.until(all_written)).lost == 1
    assert len(await stored_texts(path)) == 1


async def test_a_file_that_cannot_be_read_is_an_error_without_its_words(path: Path) -> None:
    async with Store.open(path) as store:
        other = sqlite3.connect(path)
        other.execute("DROP TABLE room")
        other.close()
        for answer in (store.transcript("standup"), store.ended_rooms()):
            with pytest.raises(StoreError) as caught:
                await answer
            assert caught.value.code == "error"
            assert "standup" not in str(caught.value.__cause__)


async def test_no_log_says_what_was_said_or_by_whom(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness = Witness()
    async with writing(path, witness) as store:
        disk.most_pages = 1
        room_id = begin(store, room())
        record(store, room_id, *(final(seq, LONG) for seq in range(9)), final(9, "secret \ud800"))
        await witness.until(lambda health: not health.ok)
        disk.most_pages = 1_000_000
        await witness.until(all_written)
    said = caplog.text + "".join(str(vars(entry)) for entry in caplog.records)
    for private in ("a long sentence", "secret", "Ada", str(path)):
        assert private not in said


# the end


async def test_closing_writes_what_is_pending(path: Path) -> None:
    async with writing(path) as store:
        record(store, begin(store, room()), *(final(seq) for seq in range(3 * BATCH)))
    assert len(await stored_texts(path)) == 3 * BATCH


async def test_a_store_whose_writer_never_ran_still_writes_when_it_closes(path: Path) -> None:
    async with Store.open(path) as store:
        record(store, begin(store, room()), final(1))
    assert len(await stored_texts(path)) == 1


async def test_closing_tries_again_until_its_deadline(path: Path) -> None:
    witness = Witness()
    async with Store.open(path, witness) as store:
        record(store, begin(store, room()), final(1))
        async with asyncio.TaskGroup() as tasks, locked_by_another(path):
            tasks.create_task(store.close(deadline_s=PATIENCE_S))
            await witness.until(lambda health: not health.ok)
    assert len(await stored_texts(path)) == 1


async def test_closing_while_a_batch_is_being_written_waits_for_that_alone(path: Path) -> None:
    async with (
        Store.open(path) as store,
        asyncio.timeout(PATIENCE_S),
        asyncio.TaskGroup() as tasks,
    ):

        def close_meanwhile(*_: object) -> None:
            tasks.create_task(store.close(deadline_s=10 * PATIENCE_S))

        sa.event.listen(Pool, "checkout", close_meanwhile)
        try:
            record(store, begin(store, room()), final(1))
            await store.run()
        finally:
            sa.event.remove(Pool, "checkout", close_meanwhile)
    assert len(await stored_texts(path)) == 1


async def test_closing_gives_up_at_its_deadline_and_says_what_was_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(path) as store:
        record(store, begin(store, room()), final(1), final(2))
        async with locked_by_another(path):
            await store.close(deadline_s=0.01)
        assert store.health.lost == 4
    assert messages(caplog)[-1] == "the store closed before all was written"
    assert await stored_texts(path) == []


async def test_a_closed_store_takes_nothing_and_answers_nothing(path: Path) -> None:
    async with writing(path) as store:
        await store.close()
        await store.close()
        store.room_started(room())
        assert store.health.lost == 1
        for answer in (
            store.transcript("standup"),
            store.finals_after("standup", 0, 1),
            store.ended_rooms(),
        ):
            with pytest.raises(StoreError) as caught:
                await answer
            assert caught.value.code == "closed"


@types.coroutine
def cancelled_at(n: int, work: Coroutine[object, object, T]) -> Generator[object, object, T]:
    """Run `work`, and cancel the task it runs in when it waits for the nth time."""
    task = asyncio.current_task()
    assert task is not None
    resume: Callable[[], object] = lambda: work.send(None)  # noqa: E731
    for waits in itertools.count(1):
        try:
            awaited = resume()
        except StopIteration as done:
            result: T = done.value
            return result
        if waits == n:
            task.cancel()
        try:
            yield awaited
            resume = lambda: work.send(None)  # noqa: E731
        except BaseException as error:
            resume = lambda error=error: work.throw(error)  # type: ignore[misc]  # noqa: E731
    raise AssertionError("a coroutine ends by StopIteration")


async def cancel_at(n: int, work: Coroutine[object, object, object]) -> asyncio.Task[None]:
    """The task, kept by the caller because its traceback keeps alive what it was doing."""

    async def run() -> None:
        await cancelled_at(n, work)

    task = asyncio.create_task(run())
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task])
    if not task.cancelled():
        await task
    return task


async def test_closing_can_be_cancelled_at_each_await(tmp_path: Path) -> None:
    for n in itertools.count(1):
        path = tmp_path / f"{n}.sqlite3"
        async with Store.open(path) as store:
            record(store, begin(store, room()), *(final(seq) for seq in range(8)))
            closing = await cancel_at(n, store.close())
            assert store.health.pending == 0
            missing = store.health.lost
        assert len(await stored_texts(path)) >= 8 - missing
        if not closing.cancelled():
            assert n > 1, "it was never cancelled"
            return


async def test_opening_can_be_cancelled_at_each_await(tmp_path: Path) -> None:
    async def open_and_close(path: Path) -> None:
        async with Store.open(path):
            pass

    for n in itertools.count(1):
        opening = await cancel_at(n, open_and_close(tmp_path / f"{n % 2}.sqlite3"))
        if not opening.cancelled():
            assert n > 1, "it was never cancelled"
            return


async def test_a_writer_cancelled_at_any_await_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH_S", 0.0)
    witness = Witness()
    for n in itertools.count(1):
        path = tmp_path / f"{n}.sqlite3"
        async with Store.open(path, witness) as store:
            record(store, begin(store, room()), *(final(seq) for seq in range(8)))
            # the writer has done its work when it waits for more, and that await is cancelled too
            run = await cancel_at(n, store.run())
            assert run.cancelled()
            done = store.health.pending == 0
        assert store.health.lost == 0
        assert len(await stored_texts(path)) == 8
        if done:
            assert n > 1, "it was never cancelled"
            return

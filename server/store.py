"""What was said, surviving a crash.

Recording never waits and never raises: records go into a bounded queue, and one task (`Store.run`)
writes them in batches. Reads see the file and the queue together, so an export never misses a
final that was already shown. A killed process loses what was recorded since the last commit,
about a second; so does a power loss, where the disk keeps what it was told to sync. One server
per file. Moments come in as unix times; the loop's clock only paces the writing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server import store_records as records
from server import store_schema as schema
from server.store_records import EndedRoom as EndedRoom
from server.store_records import RoomRecord as RoomRecord
from server.store_records import StoredEvent as StoredEvent
from server.store_schema import StoreError as StoreError
from transcriber.transcript import Transcript, TranscriptGap, TranscriptSegment

log = logging.getLogger("roomscribe.store")

BATCH_S = 0.5
# Records that are written without waiting longer, and the most that one transaction takes:
# SQLAlchemy prepares them on the loop, a hundred in about 2 ms.
BATCH = 100
# About ten minutes of sixteen people talking at once; some 30 MB.
BOUND = 10_000
RETRY_S = 0.5
RETRY_MOST_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`reason` is None, a `StoreError.code`, or `overflow`; `lost` counts records since start."""

    ok: bool
    reason: str | None
    pending: int
    lost: int


StoreObserver = Callable[[StoreHealth], None]


class Store:
    """Made by `open`, which also closes it; its owner runs `run` beside whatever records."""

    def __init__(self, engine: AsyncEngine, observe: StoreObserver | None) -> None:
        self._engine = engine
        self._observe = observe
        # rooms and participants come first in a batch, and are the last to be dropped:
        # without its room no final can be stored
        self._rooms: deque[records.Record] = deque()
        self._events: deque[records.Record] = deque()
        self._in_flight: list[records.Record] = []
        self._fault: str | None = None
        self._overflows = False
        self._lost = 0
        self._lost_in_episode = 0
        self._some_pending = asyncio.Event()
        self._many_pending = asyncio.Event()
        self._closing = asyncio.Event()
        self._writer_done = asyncio.Event()
        self._writer_done.set()
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, observe: StoreObserver | None = None) -> AsyncIterator[Self]:
        """The store in the file `path`; rooms that a crash left open are ended.

        `observe` is called after each attempt to write. Raises `StoreError`.
        """
        with schema.sole_owner(path):
            engine = await schema.open_engine(path)
            store = cls(engine, observe)
            try:
                await store._read(records.end_abandoned_rooms)
                yield store
            finally:
                await store.close()

    def room_started(self, room: RoomRecord) -> None:
        self._append(self._rooms, records.Started(room.id, room))

    def room_ended(self, room_id: str, ended_at: float) -> None:
        self._append(self._rooms, records.Ended(room_id, ended_at))

    def participant_joined(
        self, room_id: str, participant: str, name: str, joined_at: float
    ) -> None:
        self._append(self._rooms, records.Joined(room_id, participant, name, joined_at))

    def participant_left(self, room_id: str, participant: str, left_at: float) -> None:
        self._append(self._rooms, records.Left(room_id, participant, left_at))

    def segment(self, room_id: str, seq: int, segment: TranscriptSegment) -> None:
        self._append(self._events, records.Said(room_id, seq, segment))

    def gap(self, room_id: str, seq: int, gap: TranscriptGap, at: float) -> None:
        self._append(self._events, records.Missed(room_id, seq, gap, at))

    @property
    def health(self) -> StoreHealth:
        reason = self._fault or ("overflow" if self._overflows else None)
        return StoreHealth(reason is None, reason, self._count_pending(), self._lost)

    async def transcript(self, room_name: str) -> Transcript | None:
        """The latest room of that name that has finals or gaps, else the latest, live or
        ended, or None. Raises `StoreError`."""
        pending = self._pending()
        return await self._read(lambda c: records.transcript(c, room_name, pending))

    async def finals_after(self, room_id: str, seq: int, limit: int) -> list[StoredEvent]:
        """Finals and gaps with a higher `seq`, lowest first. Raises `StoreError`."""
        pending = self._pending()
        return await self._read(lambda c: records.events_after(c, room_id, seq, limit, pending))

    async def ended_rooms(self, limit: int = 100) -> list[EndedRoom]:
        """Rooms that have ended, the last one first; up to a second old. Raises `StoreError`."""
        return await self._read(lambda c: records.ended_rooms(c, limit))

    async def ended_room(self, name: str) -> EndedRoom | None:
        """The last room of that name that has ended; up to a second old. Raises `StoreError`."""
        ended = await self._read(lambda c: records.ended_rooms(c, 1, name))
        return ended[0] if ended else None

    async def run(self) -> None:
        """Write what is recorded, until `close`. No fault of the disk ends it."""
        self._writer_done.clear()
        try:
            while await self._is_due():
                retry_s = RETRY_S
                while not await self._write() and not self._closing.is_set():
                    await _happens_within(self._closing, retry_s)
                    retry_s = min(2 * retry_s, RETRY_MOST_S)
        finally:
            self._writer_done.set()

    async def _is_due(self) -> bool:
        """Wait until there is a batch to write; False when `close` will write what is left."""
        await self._some_pending.wait()
        await _happens_within(self._many_pending, BATCH_S)
        return not self._closing.is_set()

    async def close(self, deadline_s: float = 2.0) -> None:
        """Write what is pending, for at most `deadline_s`, and let go of the file.

        `run` returns. What could not be written is counted as lost. Closing twice is closing once.
        """
        if self._closing.is_set():
            return
        for event in (self._closing, self._some_pending, self._many_pending):
            event.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._writer_done.wait()
                    while self._count_pending():
                        if not await self._write():
                            await asyncio.sleep(RETRY_S)
        finally:
            self._closed = True
            if unwritten := self._count_pending():
                self._lost += unwritten
                log.error("the store closed before all was written", extra={"lost": unwritten})
            for waiting in (self._in_flight, self._rooms, self._events):
                waiting.clear()
            await schema.to_the_end(self._engine.dispose())

    def _append(self, queue: deque[records.Record], record: records.Record) -> None:
        if self._closed:
            self._lost += 1
            return
        if self._count_pending() >= BOUND:
            self._drop_oldest()
        queue.append(record)
        self._signal()

    def _drop_oldest(self) -> None:
        (self._events or self._rooms).popleft()
        self._lost += 1
        self._lost_in_episode += 1
        if not self._overflows:
            self._overflows = True
            log.error("the store's queue is full, the oldest is dropped", extra={"pending": BOUND})

    def _count_pending(self) -> int:
        return len(self._in_flight) + len(self._rooms) + len(self._events)

    def _pending(self) -> list[records.Record]:
        """Taken before the file is read: what is committed meanwhile is then here or there."""
        return [*self._in_flight, *self._rooms, *self._events]

    def _signal(self) -> None:
        count, closing = self._count_pending(), self._closing.is_set()
        for event, enough in ((self._some_pending, 1), (self._many_pending, BATCH)):
            if count >= enough or closing:
                event.set()
            else:
                event.clear()

    async def _write(self) -> bool:
        """Write one batch. False when the disk would not: the same batch is then tried again."""
        self._take_batch()
        try:
            await schema.to_the_end(self._store(tuple(self._in_flight)))
        except Exception as error:  # whatever the disk does, captions go on
            self._fail(schema.fault_code(error))
        else:
            self._recover()
        finally:
            self._signal()
        if self._observe is not None:
            self._observe(self.health)
        return self._fault is None

    def _take_batch(self) -> None:
        for queue in (self._rooms, self._events):
            count = min(BATCH - len(self._in_flight), len(queue))
            self._in_flight += [queue.popleft() for _ in range(count)]

    async def _store(self, batch: Sequence[records.Record]) -> None:
        """Commit what `_in_flight` begins with, and take it off; a record that the database
        refuses for what it is, not for the disk's sake, is found by halving and dropped."""
        try:
            async with self._engine.begin() as connection:
                for kind, same in groupby(batch, key=type):
                    rows = [records.to_row(record) for record in same]
                    await connection.execute(records.WRITE[kind], rows)
        except records.REFUSALS as refusal:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._store(batch[:middle])
                await self._store(batch[middle:])
                return
            self._lost += 1
            fields = {"room": batch[0].room_id, "error": type(refusal).__name__}
            log.error("a record could not be stored", extra=fields)
        del self._in_flight[: len(batch)]

    def _fail(self, reason: str) -> None:
        if self._fault is None:
            fields = {"reason": reason, "pending": self._count_pending()}
            log.error("the store cannot write, and tries again", extra=fields)
        self._fault = reason

    def _recover(self) -> None:
        if self._fault is not None or self._overflows:
            log.warning("the store writes again", extra={"lost": self._lost_in_episode})
        self._fault, self._overflows, self._lost_in_episode = None, False, 0

    async def _read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def transaction() -> T:
            async with self._engine.begin() as connection:
                return await query(connection)

        if self._closed:
            raise StoreError("closed")
        try:
            return await schema.to_the_end(transaction())
        except SQLAlchemyError as error:
            raise StoreError(schema.fault_code(error)) from error


async def _happens_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

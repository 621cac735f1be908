"""The store's records: what can be recorded, and how each goes into the tables and out again.

Statements are SQLAlchemy Core; `insert` is the one import that PostgreSQL has to change. Every
write can be repeated, because a batch is written again when its commit's outcome is not known.
Reads take the records that still wait in memory and lay them over what the tables hold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from server import store_schema as schema
from transcriber.transcript import Transcript, TranscriptGap, TranscriptSegment, TranscriptWord

# Rows read between two turns of the loop: about 2 ms of building segments.
PAGE = 100


@dataclass(frozen=True, slots=True)
class RoomRecord:
    id: str
    name: str
    started_at: float
    language: str


Event = TranscriptSegment | TranscriptGap


@dataclass(frozen=True, slots=True)
class StoredEvent:
    seq: int
    event: Event


@dataclass(frozen=True, slots=True)
class EndedRoom:
    id: str
    name: str
    started_at: float
    ended_at: float
    participants: tuple[str, ...]
    segments: int
    lost_s: float


@dataclass(frozen=True, slots=True)
class Started:
    room_id: str
    room: RoomRecord


@dataclass(frozen=True, slots=True)
class Ended:
    room_id: str
    ended_at: float


@dataclass(frozen=True, slots=True)
class Joined:
    room_id: str
    participant: str
    name: str
    joined_at: float


@dataclass(frozen=True, slots=True)
class Left:
    room_id: str
    participant: str
    left_at: float


@dataclass(frozen=True, slots=True)
class Said:
    room_id: str
    seq: int
    event: TranscriptSegment


@dataclass(frozen=True, slots=True)
class Missed:
    room_id: str
    seq: int
    event: TranscriptGap
    happened_at: float


Record = Started | Ended | Joined | Left | Said | Missed


# What a record's own content can provoke: a lone surrogate, a number too large, a NaN, no room.
REFUSALS = (
    IntegrityError,
    DataError,
    InterfaceError,
    ProgrammingError,
    ValueError,
    OverflowError,
    TypeError,
)

_joined = insert(schema.participant)
WRITE: dict[type, sa.Executable] = {
    Started: insert(schema.room).on_conflict_do_nothing(),
    Ended: sa.update(schema.room)
    .where(schema.room.c.id == sa.bindparam("room"))
    .values(ended_at=sa.bindparam("at")),
    Joined: _joined.on_conflict_do_update(
        index_elements=["room_id", "participant"],
        set_={"name": _joined.excluded.name, "left_at": None},
    ),
    Left: sa.update(schema.participant)
    .where(schema.participant.c.room_id == sa.bindparam("room"))
    .where(schema.participant.c.participant == sa.bindparam("who"))
    .values(left_at=sa.bindparam("at")),
    Said: insert(schema.segment).on_conflict_do_nothing(),
    Missed: insert(schema.gap).on_conflict_do_nothing(),
}


def to_row(record: Record) -> dict[str, object]:
    match record:
        case Started(room_id, room):
            return {
                "id": room_id,
                "name": room.name,
                "language": room.language,
                "started_at": room.started_at,
            }
        case Ended(room_id, at):
            return {"room": room_id, "at": at}
        case Joined(room_id, participant, name, at):
            return {
                "room_id": room_id,
                "participant": participant,
                "name": name,
                "joined_at": at,
            }
        case Left(room_id, participant, at):
            return {"room": room_id, "who": participant, "at": at}
        case Said(room_id, seq, segment):
            return {
                "room_id": room_id,
                "seq": seq,
                "segment": segment.segment,
                "revision": segment.revision,
                "participant": segment.participant,
                "name": segment.name,
                "language": segment.language,
                "start_s": segment.start,
                "end_s": segment.end,
                "spoken_at": segment.spoken_at,
                "text": segment.text,
                "words": [_word(word) for word in segment.words],
            }
        case Missed(room_id, seq, gap, at):
            return {
                "room_id": room_id,
                "seq": seq,
                "participant": gap.participant,
                "start_s": gap.start,
                "end_s": gap.end,
                "reason": gap.reason,
                "happened_at": at,
            }


async def transcript(
    connection: AsyncConnection, room_name: str, pending: Sequence[Record]
) -> Transcript | None:
    room = await _latest_room(connection, room_name, pending)
    if room is None:
        return None
    ended_at, names = await _end_and_names(connection, room.id, pending)
    events: list[Event] = []
    seq = -1
    while page := await events_after(connection, room.id, seq, PAGE, pending):
        events += [stored.event for stored in page]
        seq = page[-1].seq
    segments = [event for event in events if isinstance(event, TranscriptSegment)]
    for segment in segments:
        names.setdefault(segment.participant, segment.name)
    return Transcript(
        room=room.name,
        started_at=room.started_at,
        ended_at=ended_at,
        language=room.language,
        participants=tuple(names.items()),
        segments=tuple(sorted(segments, key=lambda segment: segment.spoken_at)),
        gaps=tuple(event for event in events if isinstance(event, TranscriptGap)),
    )


async def _latest_room(
    connection: AsyncConnection, name: str, pending: Sequence[Record]
) -> RoomRecord | None:
    """The newest room of the name that has events, else the newest: to open a name again
    takes nobody's meeting away."""
    t = schema.room.c
    pending_in = {r.room_id for r in pending if isinstance(r, Said | Missed)}
    has_events = sa.or_(
        t.id.in_(pending_in),
        sa.exists().where(schema.segment.c.room_id == t.id),
        sa.exists().where(schema.gap.c.room_id == t.id),
    )
    rows = await connection.execute(
        sa.select(has_events, t.id, t.name, t.started_at, t.language)
        .where(t.name == name)
        .order_by(has_events.desc(), t.started_at.desc())
        .limit(1)
    )
    rooms = [(bool(has), RoomRecord(*room)) for has, *room in rows]
    rooms += [
        (r.room_id in pending_in, r.room)
        for r in pending
        if isinstance(r, Started) and r.room.name == name
    ]
    found = max(rooms, key=lambda room: (room[0], room[1].started_at), default=None)
    return found[1] if found else None


async def _end_and_names(
    connection: AsyncConnection, room_id: str, pending: Iterable[Record]
) -> tuple[float | None, dict[str, str]]:
    """When the room ended, and its participants' names in the order in which they came."""
    room, participant = schema.room.c, schema.participant.c
    ended_at = await connection.scalar(sa.select(room.ended_at).where(room.id == room_id))
    rows = await connection.execute(
        sa.select(participant.participant, participant.name)
        .where(participant.room_id == room_id)
        .order_by(participant.joined_at)
    )
    names = {row.participant: row.name for row in rows}
    for record in pending:
        match record:
            case Ended(of_room, at) if of_room == room_id:
                ended_at = at
            case Joined(of_room, who, name, _) if of_room == room_id:
                names[who] = name
    return ended_at, names


async def events_after(
    connection: AsyncConnection, room_id: str, seq: int, limit: int, pending: Iterable[Record]
) -> list[StoredEvent]:
    """Finals and gaps of the room, from the tables and from `pending`, in order of `seq`."""
    events = {
        record.seq: StoredEvent(record.seq, record.event)
        for record in pending
        if isinstance(record, Said | Missed) and record.room_id == room_id and record.seq > seq
    }
    for table, event in ((schema.segment, _segment), (schema.gap, _gap)):
        rows = await connection.execute(
            sa.select(table)
            .where(table.c.room_id == room_id, table.c.seq > seq)
            .order_by(table.c.seq)
            .limit(limit)
        )
        events.update((row.seq, StoredEvent(row.seq, event(row))) for row in rows)
    return [events[seq] for seq in sorted(events)[:limit]]


async def ended_rooms(
    connection: AsyncConnection, limit: int, name: str | None = None
) -> list[EndedRoom]:
    """The last one first; those of one name, if one is given."""
    room, gap, segment, participant = (
        schema.room.c,
        schema.gap.c,
        schema.segment.c,
        schema.participant.c,
    )
    said = sa.select(sa.func.count()).where(segment.room_id == room.id)
    lost = sa.select(sa.func.sum(gap.end_s - gap.start_s)).where(gap.room_id == room.id)
    rows = await connection.execute(
        sa.select(
            room.id,
            room.name,
            room.started_at,
            room.ended_at,
            said.scalar_subquery().label("segments"),
            sa.func.coalesce(lost.scalar_subquery(), 0.0).label("lost_s"),
        )
        .where(room.ended_at.is_not(None), sa.true() if name is None else room.name == name)
        .order_by(room.ended_at.desc())
        .limit(limit)
    )
    ended = rows.all()
    names: dict[str, list[str]] = {row.id: [] for row in ended}
    for room_id, name in await connection.execute(
        sa.select(participant.room_id, participant.name)
        .where(participant.room_id.in_(names))
        .order_by(participant.joined_at)
    ):
        names[room_id].append(name)
    return [
        EndedRoom(
            id=row.id,
            name=row.name,
            started_at=row.started_at,
            ended_at=row.ended_at,
            participants=tuple(names[row.id]),
            segments=row.segments,
            lost_s=row.lost_s,
        )
        for row in ended
    ]


async def end_abandoned_rooms(connection: AsyncConnection) -> None:
    """End the rooms that a crash left open, at the last moment that is known of each."""
    room, participant, segment, gap = (
        schema.room.c,
        schema.participant.c,
        schema.segment.c,
        schema.gap.c,
    )
    said_until = segment.spoken_at + segment.end_s - segment.start_s
    for room_id in await connection.scalars(sa.select(room.id).where(room.ended_at.is_(None))):
        moments = [
            await connection.scalar(sa.select(sa.func.max(moment)).where(owner == room_id))
            for moment, owner in (
                (room.started_at, room.id),
                (participant.joined_at, participant.room_id),
                (participant.left_at, participant.room_id),
                (said_until, segment.room_id),
                (gap.happened_at, gap.room_id),
            )
        ]
        ended_at = max(moment for moment in moments if moment is not None)
        await connection.execute(
            sa.update(schema.room).where(room.id == room_id).values(ended_at=ended_at)
        )


def _word(word: TranscriptWord) -> list[object]:
    told = [word.word, word.start, word.end, word.confidence]
    return [*told, word.voice] if word.voice else told


def _segment(row: sa.Row[tuple[object, ...]]) -> TranscriptSegment:
    return TranscriptSegment(
        segment=row.segment,
        participant=row.participant,
        name=row.name,
        start=row.start_s,
        end=row.end_s,
        text=row.text,
        language=row.language,
        words=tuple(TranscriptWord(*word) for word in row.words),
        spoken_at=row.spoken_at,
        revision=row.revision,
    )


def _gap(row: sa.Row[tuple[object, ...]]) -> TranscriptGap:
    return TranscriptGap(row.participant, row.start_s, row.end_s, row.reason)

"""Builders for rooms: who joins, and what is said, without any audio."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.config import Settings
from server.doors import doors_of
from server.house import House
from server.limits import Limits
from server.lobby import Lobby
from server.metrics import Metrics
from server.participant import Participant
from server.room import Room
from server.store import Store
from signaling.seat import JoinRequest
from transcriber.engines import EngineOptions
from transcriber.process import WorkerProcess
from transcriber.types import SAMPLE_RATE, Caption, Gap, GapReason, Timing, Word

Message = dict[str, object]


@asynccontextmanager
async def open_lobby(settings: Settings) -> AsyncIterator[Lobby]:
    """A lobby with a store, and an engine that is never started."""
    async with Store.open(settings.data_dir / "roomscribe.sqlite3") as store:
        engine = WorkerProcess(EngineOptions("scripted"))
        metrics = Metrics()
        limits = Limits(settings.limits, metrics.note_limit)
        opened = Lobby(House(settings, metrics, store, engine, doors_of(settings), limits))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(), name="store")
            running = tasks.create_task(opened.run(), name="lobby")
            await asyncio.sleep(0)
            yield opened
            await opened.close()
            await asyncio.wait({running})
            await store.close()


async def join(
    lobby: Lobby, name: str = "Ada", room: str = "standup", **fields: object
) -> Participant:
    return await lobby.join(JoinRequest(room, name, **fields))  # type: ignore[arg-type]


def room_of(lobby: Lobby, name: str = "standup") -> Room:
    return lobby.rooms[name]


def caption(
    participant: Participant,
    text: str = "we meet in Paris",
    *,
    utterance: int = 1,
    revision: int = 1,
    tentative: str = "",
    is_final: bool = True,
    start_s: float = 1.0,
    timing: Timing | None = None,
) -> Caption:
    start = int(start_s * SAMPLE_RATE)
    words = (Word("we", start, start + 3200, 0.93),) if is_final else ()
    return Caption(
        participant.stream_id,
        utterance,
        revision,
        text,
        tentative,
        is_final,
        start,
        start + 2 * SAMPLE_RATE,
        participant.language,
        words,
        timing or Timing(0.64),
    )


def gap(participant: Participant, reason: GapReason = GapReason.NETWORK) -> Gap:
    return Gap(participant.stream_id, 16_000, 40_000, reason)


async def received(participant: Participant) -> list[Message]:
    """What waits for the participant's socket, taken."""
    outbox = participant.outbox
    assert outbox is not None
    return [json.loads(await anext(outbox)) for _ in range(len(outbox))]


def types(messages: list[Message]) -> list[object]:
    return [message["type"] for message in messages]


async def end_room(lobby: Lobby, name: str = "standup") -> None:
    """End a room as the sweep does, and wait until the store knows."""
    lobby.rooms.pop(name).end()
    async with asyncio.timeout(20):
        while not await lobby.house.store.ended_rooms():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

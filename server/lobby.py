"""`Lobby`: the rooms by name, who gets in, and what is told to all of them.

Rooms run in the lobby's task group. One sweep four times a second ends what is over: rooms
that stayed empty, participants whose socket did not come back.
"""

import asyncio
import logging
import time

from server import wire
from server.house import House
from server.participant import Participant, is_of_call
from server.room import Room
from signaling.bounds import Bounds
from signaling.errors import Refused
from signaling.grant import Grant
from signaling.messages import EngineMessage, Load, check_language
from signaling.seat import JoinRequest
from transcriber.types import BatchReport, EngineState, EngineStatus

_SWEEP_S = 0.25
_FLUSH_S = 5.0
# Readers notice a second; the gap between the two keeps the notice from flickering.
_BEHIND_S, _CAUGHT_UP_S = 1.5, 0.8

log = logging.getLogger("roomscribe.lobby")


class Lobby:
    def __init__(self, house: House) -> None:
        self.house = house
        self.rooms: dict[str, Room] = {}
        self.is_open = True
        self._tasks: asyncio.TaskGroup | None = None
        self._closed = asyncio.Event()
        self._load = Load(state="ok", lag_s=0.0)
        self._reported_at = 0.0
        limits = house.settings.limits
        self.bounds = Bounds(
            limits.messages_per_s,
            limits.message_bytes,
            limits.sdp_bytes,
            limits.sdp_lines,
            limits.body_s,
            frozenset(house.settings.server.allowed_origins),
        )

    def note_limit(self, limit: str) -> None:
        """Someone came to one of the bounds."""
        self.house.limits.hit(limit)

    async def run(self) -> None:
        """Own the rooms until `close` is done."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            sweep = tasks.create_task(self._sweep_forever(), name="lobby-sweep")
            await self._closed.wait()
            sweep.cancel()

    async def join(self, request: JoinRequest) -> Participant:
        """Take someone into a room, or back into it. Raises `Refused`."""
        self._check_open()
        if request.resume is not None:
            self.house.limits.take_read(request.address, time.monotonic())
            back = await self._resume(request, request.resume)
            if back is not None:
                self.house.metrics.joins.labels("resumed").inc()
                self._tell_load(back)
                return back
        grant = request.grant or await self._admit(request)
        self._check_open()  # again: a provider's keys may have had to be waited for
        language = self._language(request)
        room = self.rooms.get(request.room)
        if room is None or room.is_ended:
            self.house.limits.check_rooms(len(self.rooms))
        elif request.grant is None:
            room.rules.check_in(grant)
            self.house.limits.check_participants(len(room.participants))
        self.house.limits.take_seat(request.address)
        if room is None or room.is_ended:
            room = self._open(request.room)
        self.house.metrics.joins.labels("joined").inc()
        newcomer = room.join(request, language, grant)
        self._tell_load(newcomer)
        return newcomer

    def _check_open(self) -> None:
        """Raises `Refused`."""
        if not self.is_open:
            self.house.metrics.joins.labels("closing").inc()
            raise Refused(
                "shutting_down",
                "the server is shutting down",
                retryable=True,
                status=503,
                retry_after_s=5,
            )

    async def _admit(self, request: JoinRequest) -> Grant:
        """Raises `Refused`."""
        try:
            grant = await self.house.doors.check(request.token, request.needs, request.room)
            # afterwards: who may not come in uses up nothing of those beside them
            self.house.limits.take_join(request.address, time.monotonic())
        except Refused:
            self.house.metrics.joins.labels("refused").inc()
            raise
        return grant

    def find_seat(self, room: str, resume: str) -> Participant | None:
        found = self.rooms.get(room)
        return found.find(resume) if found is not None else None

    def engine_changed(self, status: EngineStatus) -> None:
        """Tell every page how the engine is."""
        self.house.metrics.engine_up.set(status.state is EngineState.READY)
        if status.state is EngineState.RESTARTING:
            self.house.metrics.engine_restarts.inc()
        log.info(
            "engine state",
            extra={
                "state": status.state.value,
                "engine": status.info.name,
                "expect": status.info.note,
            },
        )
        message = EngineMessage(
            state=status.state.value,
            progress=status.progress,
            message=status.message,
            name=status.info.name,
            model=status.info.model,
            languages=status.info.languages,
            note=status.info.note,
            detects=status.info.detects,
        )
        for room in self.rooms.values():
            room.tell(message)

    def batch_done(self, report: BatchReport) -> None:
        """Measure a batch, and tell the pages when captions begin to lag or catch up."""
        metrics = self.house.metrics
        metrics.batch_size.observe(report.windows)
        metrics.queue_age_s.observe(report.queue_age_s)
        metrics.engine_s.observe(report.engine_s)
        if report.audio_s:
            metrics.real_time_factor.observe(report.engine_s / report.audio_s)
        metrics.windows_queued.set(report.waiting)
        metrics.batch_limit.set(report.batch_limit)
        self._reported_at = time.monotonic()
        self._note_lag(report.queue_age_s + report.engine_s)

    async def close(self) -> None:
        """Let no one in, send the last finals, then send everyone away."""
        self.is_open = False
        rooms = list(self.rooms.values())
        try:
            async with asyncio.timeout(_FLUSH_S):
                await asyncio.gather(*(room.flush() for room in rooms))
        except TimeoutError:
            log.warning("not every final was flushed before shutdown")
        for room in rooms:
            room.end("shutdown")
        self._closed.set()

    def end_room(self, room: Room, reason: str = "ended") -> None:
        """End it at once; the next who joins opens another of its name."""
        room.end(reason)
        if self.rooms.get(room.name) is room:
            del self.rooms[room.name]

    def _open(self, name: str) -> Room:
        assert self._tasks is not None
        room = Room(name, self.house)
        self.rooms[name] = room
        self._tasks.create_task(room.run(), name=f"room-{name}")
        log.info("room opened", extra={"room": name})
        return room

    async def _resume(self, request: JoinRequest, resume: str) -> Participant | None:
        room = self.rooms.get(request.room)
        older = []
        if room is not None and room.find(resume) is not None and request.last_seq is not None:
            older = await room.history.older(request.last_seq)
        # looked up after the wait: they may have left meanwhile
        participant = room.find(resume) if room is not None else None
        if room is None or participant is None or not participant.has_socket:
            return None
        language = participant.language if request.language is None else self._language(request)
        room.resume(participant, request, language, older)
        return participant

    def _language(self, request: JoinRequest) -> str:
        info = self.house.engine.status.info
        if request.language is not None:
            return check_language(request.language, info.languages, detects=info.detects)
        try:
            wanted = self.house.settings.transcriber.language
            return check_language(wanted, info.languages, detects=info.detects)
        except Refused:
            return info.languages[0]

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(time.monotonic())

    def sweep(self, now: float) -> None:
        """End what is over."""
        linger_s = self.house.settings.rooms.linger_s
        idle_s = self.house.settings.rooms.idle_s
        for room in list(self.rooms.values()):
            room.sweep(now)
            if room.empty_since is not None and now - room.empty_since >= linger_s:
                self.end_room(room)
            elif now - room.active_at >= idle_s and not is_of_call(room.name):
                self.house.limits.hit("idle_s")
                self.end_room(room, "idle")
        if (
            self._is_behind
            and now - self._reported_at > _BEHIND_S
            and not self.house.engine.pending
        ):
            self._note_lag(0.0)

    @property
    def _is_behind(self) -> bool:
        return self._load.state == "catching_up"

    def _note_lag(self, lag_s: float) -> None:
        is_behind = lag_s > (_CAUGHT_UP_S if self._is_behind else _BEHIND_S)
        if is_behind == self._is_behind:
            return
        self._load = Load(state="catching_up" if is_behind else "ok", lag_s=round(lag_s, 1))
        for room in self.rooms.values():
            room.tell(self._load)

    def _tell_load(self, newcomer: Participant) -> None:
        """The others were told when captions began to lag."""
        if self._is_behind:
            newcomer.send(self._load)


def summary(room: Room) -> dict[str, object]:
    """A live room for the room list."""
    return {
        "room": room.name,
        "started_at": wire.iso(room.started_at),
        "ended_at": None,
        "locked": room.rules.is_locked,
        "participants": [
            {
                **participant.roster_entry.model_dump(),
                "since": wire.iso(participant.joined_at),
                "dropped_s": participant.dropped_s(),
                "audio": wire.fates(participant.fates()),
            }
            for participant in room.participants.values()
        ],
    }

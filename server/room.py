"""`Room`: its participants, their speakers' tasks, and the fan-out of captions.

One task group holds a task per speaker. Every event has the next `seq` and is encoded once
for all who read it.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator

from media.peer import Peer
from server import wire
from server.history import History
from server.house import House
from server.ice import ice_servers_for
from server.outbox import Outbox
from server.participant import Participant
from server.replay import Event
from server.rules import Rules
from server.speaker import Speaker
from server.store import RoomRecord
from signaling.errors import Refused
from signaling.grant import Grant, Right
from signaling.messages import (
    Bye,
    IceServerEntry,
    Joined,
    Left,
    RosterEntry,
    ServerMessage,
    Updated,
    Welcome,
    encode,
)
from signaling.seat import JoinRequest
from transcriber.transcript import TranscriptGap
from transcriber.types import Caption, Gap

RESUME_WITHIN_S = 30.0
# A client that lost its socket noticed later than it lost events.
_RESUME_OVERLAP_S = 10.0

Watcher = Callable[[Participant, Caption | Gap], None]

log = logging.getLogger("roomscribe.room")


class Room:
    """`run` it in a task; it ends after `end`."""

    def __init__(self, name: str, house: House) -> None:
        self.id = uuid.uuid4().hex
        self.name = name
        self.house = house
        self.started_at = time.time()
        self.participants: dict[str, Participant] = {}
        self.empty_since: float | None = time.monotonic()
        self.active_at = time.monotonic()  # someone spoke, or came
        self.rules = Rules()
        self.history = History(name, self.id, house.store, self._name_of)
        self.seq = 0
        self._joined = 0
        self._sse: dict[Outbox, str | None] = {}  # with the token that each came by
        self._watchers: list[Watcher] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._speakers: dict[Speaker, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        self._end_reason = "ended"
        house.store.room_started(
            RoomRecord(self.id, name, self.started_at, house.settings.transcriber.language)
        )

    async def run(self) -> None:
        """Own the speakers' tasks until `end`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._ended.wait()
            for participant in list(self.participants.values()):
                self.leave(participant, self._end_reason)
        for outbox in self._sse:
            outbox.end(self._end_reason)
        self.house.store.room_ended(self.id, time.time())
        log.info("room ended", extra={"room": self.name})

    def end(self, reason: str = "ended") -> None:
        """Send everyone away once their last words are out."""
        self._end_reason = reason
        self._ended.set()

    @property
    def is_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def sse_listeners(self) -> int:
        return len(self._sse)

    @property
    def peers(self) -> list[Peer]:
        return [speaker.peer for speaker in self._speakers]

    # Who is here

    def join(self, request: JoinRequest, language: str, grant: Grant) -> Participant:
        """Take someone in."""
        self._joined += 1
        self.active_at = time.monotonic()
        participant = Participant(self, f"p{self._joined}", request, language, grant)
        participant.muted = participant.muted_by_owner = self.rules.silences(grant)
        self.tell(Joined(**participant.roster_entry.model_dump()))
        self.participants[participant.participant] = participant
        self.empty_since = None
        if request.has_socket:
            participant.outbox = Outbox()
            participant.send(self._welcome(participant, resumed=False))
        self.house.store.participant_joined(
            self.id, participant.participant, participant.name, participant.joined_at
        )
        log.info(
            "participant joined",
            extra={"room": self.name, "participant": participant.participant},
        )
        return participant

    def resume(
        self, participant: Participant, request: JoinRequest, language: str, older: list[Event]
    ) -> None:
        """Give a participant who came back a new outbox, with what they missed: `older`, which
        has left memory, and what has not."""
        if participant.outbox is not None:
            participant.send(Bye(reason="resumed"))
            participant.outbox.end("resumed")
        lost_at, participant.lost_at = participant.lost_at, None
        participant.outbox = Outbox()
        name = participant.grant.name or request.name
        is_renamed, participant.name = participant.name != name, name
        if language != participant.language:
            participant.set_language(language)
        participant.send(self._welcome(participant, resumed=True))
        if request.last_seq is not None:
            missed = older + self.history.after(older[-1].seq if older else request.last_seq)
        else:
            since = (lost_at or time.monotonic()) - _RESUME_OVERLAP_S
            missed = self.history.since(since)
        participant.outbox.put_backlog([event.text for event in missed])
        if is_renamed:
            self.announce(participant)
            self.house.store.participant_joined(
                self.id, participant.participant, participant.name, participant.joined_at
            )
        log.info(
            "participant resumed",
            extra={"room": self.name, "participant": participant.participant},
        )

    def _name_of(self, participant: str) -> str | None:
        who = self.participants.get(participant)
        return None if who is None else who.name

    def find(self, resume: str) -> Participant | None:
        return next((p for p in self.participants.values() if p.resume == resume), None)

    def leave(self, participant: Participant, reason: str) -> None:
        """Let someone go; their last words still come."""
        if self.participants.pop(participant.participant, None) is None:
            return
        participant.has_left = True
        self.house.limits.give_seat(participant.address)
        if participant.outbox is not None:
            participant.outbox.end(reason, encode(Bye(reason=reason)))
        if not self.participants:
            self.empty_since = time.monotonic()
        self.tell(Left(participant=participant.participant, reason=reason))
        self.house.store.participant_left(self.id, participant.participant, time.time())
        log.info(
            "participant left",
            extra={"room": self.name, "participant": participant.participant, "reason": reason},
        )
        if participant.peer is not None:
            participant.peer.end_audio()
        elif participant.stream is not None:
            participant.stream.close()

    def remove(self, participant: Participant) -> None:
        """By the owner: all that came by their token goes, and nothing comes by it again while the
        room lives."""
        token_id = participant.grant.token_id
        self.leave(participant, "removed")
        if token_id is None:
            return
        self.rules.bar(token_id)
        for other in list(self.participants.values()):
            if other.grant.token_id == token_id:
                self.leave(other, "removed")
        for outbox, came_by in self._sse.items():
            if came_by == token_id:
                outbox.end("removed")

    def silence(self, participant: Participant, held: bool) -> None:
        """By the owner: until they may speak again, also where they come in anew."""
        token_id = participant.grant.token_id
        if token_id is not None:
            self.rules.silence(token_id, held)
        for other in list(self.participants.values()):
            if other is participant or (token_id and other.grant.token_id == token_id):
                other.hold_muted(held)

    def drop_listener(self, participant: Participant) -> None:
        """They do not read their captions."""
        self.house.metrics.listeners_dropped.inc()
        self.leave(participant, "slow_reader")

    def sweep(self, now: float) -> None:
        """Let go of those whose socket did not come back, and end what went silent."""
        for speaker in self._speakers:
            speaker.sweep(now)
        for participant in list(self.participants.values()):
            if participant.lost_at is not None and now - participant.lost_at >= RESUME_WITHIN_S:
                self.leave(participant, "lost")

    def announce(self, participant: Participant) -> None:
        """Tell everyone what changed about someone."""
        if not participant.has_left:
            message = Updated(**participant.roster_entry.model_dump())
            # whoever has not read the last one yet needs only this
            self.tell(message, replaces=f"updated {participant.participant}")

    def tell(self, message: ServerMessage, replaces: str | None = None) -> None:
        """Send a message to every socket, in place of an earlier one that still waits."""
        text = encode(message)
        for participant in list(self.participants.values()):
            participant.send_text(text, replaces)

    # Speakers

    def attend(self, participant: Participant, peer: Peer) -> None:
        """Listen to a new peer of a participant, in place of the one before.

        Raises `Refused` if the participant has left meanwhile.
        """
        if participant.has_left or self._tasks is None or self.is_ended:
            raise Refused("left", "the participant has left the room", status=409)
        before = participant.peer
        if before is not None:
            before.end_audio()
            participant.past_ledger = participant.past_ledger.plus(before.ledger)
        participant.peer = peer
        speaker = Speaker(self, participant, peer)
        self._speakers[speaker] = self._tasks.create_task(
            self._run(speaker), name=f"speaker-{participant.participant}"
        )

    async def flush(self) -> None:
        """End all audio and wait until the last finals are out."""
        for speaker in self._speakers:
            speaker.peer.end_audio()
        if self._speakers:
            await asyncio.wait(self._speakers.values())

    def count_audio(self) -> None:
        """Bring the counters of audio up to now; called on a scrape."""
        for speaker in self._speakers:
            speaker.count()

    async def _run(self, speaker: Speaker) -> None:
        try:
            await speaker.run()
        finally:
            self._speakers.pop(speaker, None)
            self.house.limits.give_peer(speaker.participant.address)
            self._peer_gone(speaker.participant, speaker.peer)

    def _peer_gone(self, participant: Participant, peer: Peer) -> None:
        if participant.peer is peer:
            participant.past_ledger = participant.past_ledger.plus(peer.ledger)
            participant.peer = None
            if not participant.outlives_peer:
                self.leave(participant, "lost")
        if participant.has_left and participant.peer is None and participant.stream is not None:
            participant.stream.close()

    # Captions

    def publish(self, participant: Participant, said: Caption | Gap) -> None:
        """Give a caption or gap to everyone who reads, and finals to the store."""
        self.seq += 1
        self.active_at = time.monotonic()
        for watcher in self._watchers:
            watcher(participant, said)
        if isinstance(said, Gap):
            self._publish_gap(participant, said)
            return
        message = wire.caption_message(self.seq, self.name, participant, said)
        self._send(
            Event(self.seq, "caption", encode(message), message.segment, said.is_final, _now())
        )
        self._measure(said)
        if said.is_final and message.stable:
            spoken_at = participant.began_at + message.start
            segment = wire.transcript_segment(message, spoken_at)
            self.house.store.segment(self.id, self.seq, segment)

    def _publish_gap(self, participant: Participant, gap: Gap) -> None:
        message = wire.gap_message(self.seq, self.name, participant, gap)
        self._send(Event(self.seq, "gap", encode(message), None, True, _now()))
        self.house.metrics.gap_s.labels(message.reason).inc(message.end - message.start)
        self.house.store.gap(
            self.id,
            self.seq,
            TranscriptGap(message.participant, message.start, message.end, message.reason),
            time.time(),
        )

    def watch(self, watcher: "Watcher") -> None:
        """Call `watcher` with each caption and gap, as it is published."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: "Watcher") -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def subscribe(self, outbox: Outbox, token_id: str | None = None) -> None:
        self._sse[outbox] = token_id

    def unsubscribe(self, outbox: Outbox) -> None:
        self._sse.pop(outbox, None)
        self.house.metrics.captions_skipped.inc(outbox.skipped)

    def _send(self, event: Event) -> None:
        self.history.push(event)
        for participant in list(self.participants.values()):
            participant.deliver(event)
        if self._sse:
            text = event.as_sse
            for outbox in self._sse:
                event.put_into(outbox, text)

    def _measure(self, caption: Caption) -> None:
        metrics = self.house.metrics
        timing = caption.timing
        metrics.captions.labels("final" if caption.is_final else "interim").inc()
        metrics.words.labels("shown").inc(timing.words_shown)
        metrics.words.labels("taken_back").inc(timing.words_taken_back)
        if timing.first_text_s is not None:
            metrics.first_text_s.observe(timing.first_text_s)
        if timing.final_s is not None:
            metrics.final_s.observe(timing.final_s)

    def _welcome(self, participant: Participant, *, resumed: bool) -> Welcome:
        return Welcome(
            participant=participant.participant,
            resume=participant.resume,
            room=self.name,
            participants=tuple(self._roster()),
            ice_servers=self._ice_servers(participant),
            engine=wire.engine_summary(self.house.engine.status, participant.language),
            resumed=resumed,
            rights=tuple(right.value for right in Right if participant.grant.allows(right)),
        )

    def _ice_servers(self, participant: Participant) -> tuple[IceServerEntry, ...]:
        """For those who may speak, with credentials that are theirs alone."""
        if not participant.grant.allows(Right.PUBLISH):
            return ()
        whose = f"{self.id[:12]}-{participant.participant}"
        return ice_servers_for(self.house.settings.media, whose, time.time())

    def _roster(self) -> Iterator[RosterEntry]:
        for participant in self.participants.values():
            yield participant.roster_entry


def _now() -> float:
    return time.monotonic()

"""`Speaker`: listens to one peer of a participant, from its first chunk to its last final.

The containment of one speaker: whatever goes wrong in here is logged and counted, the
person is told, and nobody else notices.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from media.feed import FeedEnded
from media.pcm import PcmChunk
from media.peer import Peer, PeerEvent
from media.timeline import Jump
from media.track import Ledger
from server.participant import Participant
from signaling.messages import Error
from transcriber.stream import Hearing, SpeakerStream
from transcriber.types import SAMPLE_RATE, GapReason
from transcriber.vad import make_vad

if TYPE_CHECKING:
    from server.room import Room

# Without a packet for so long, an utterance has ended.
_PAUSE_S = 2.0
_FLUSH_S = 5.0
# ICE waits for ever for candidates of a peer that never says it has no more.
CONNECT_WITHIN_S = 30.0

log = logging.getLogger("roomscribe.speaker")


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the metrics know already."""

    ledger: Ledger = field(default_factory=Ledger)
    packets_lost: int = 0
    packets_unused: dict[str, int] = field(default_factory=dict)
    restored: int = 0
    dropped: int = 0


class Speaker:
    """Owns `peer` while `run` runs, and closes it."""

    def __init__(self, room: "Room", participant: Participant, peer: Peer) -> None:
        self.participant = participant
        self.peer = peer
        self._room = room
        self._house = room.house
        self._counted = _Counted()

    async def run(self) -> None:
        """Listen until the feed ends, then let the last final out and close the peer."""
        try:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(), name="peer-events")
                    await self._listen()
                    await self._flush()
                    # Ended, not cancelled: a task that was cancelled within a timeout holds
                    # itself, and the speaker with it, until a collection.
                    self.peer.events.end()
            finally:
                await self.peer.close()
                self.count()
        except* Exception as errors:
            self._house.metrics.speakers_failed.inc()
            log.error(
                "a speaker failed",
                extra={"room": self._room.name, "participant": self.participant.participant},
                exc_info=errors.exceptions[0],
            )
            self._start_over()

    def sweep(self, now: float) -> None:
        """Notice that a speaker's packets have ceased in the middle of an utterance."""
        stream = self.participant.stream
        if stream is not None and stream.is_speaking:
            self.peer.pause(now, _PAUSE_S)

    def count(self) -> None:
        """Bring the counters of audio up to now."""
        metrics = self._house.metrics
        before = self._counted
        self._counted = now = _Counted(
            replace(self.peer.ledger),
            self.peer.packets_lost,
            self.peer.packets_unused,
            self.peer.restored,
            self.peer.feed.dropped,
        )
        for fate, samples in now.ledger.minus(before.ledger).fates():
            # what was heard may still turn into overload; a counter only grows
            metrics.audio_s.labels(fate).inc(max(0, samples) / SAMPLE_RATE)
        metrics.packets_lost.inc(now.packets_lost - before.packets_lost)
        for reason, packets in now.packets_unused.items():
            unused = packets - before.packets_unused.get(reason, 0)
            metrics.packets_unused.labels(reason).inc(unused)
        metrics.restored_s.inc((now.restored - before.restored) / SAMPLE_RATE)
        metrics.chunks_dropped.labels("overload").inc(now.dropped - before.dropped)
        self._count_fates()
        self._count_frames()

    def _count_frames(self) -> None:
        participant, frames = self.participant, self._house.metrics.vad_frames
        if participant.stream is None:
            return
        (seen, skipped), before = participant.stream.frames, participant.counted_frames
        participant.counted_frames = seen, skipped
        frames.labels("skipped").inc(skipped - before[1])
        frames.labels("judged").inc(seen - before[0] - (skipped - before[1]))

    def _count_fates(self) -> None:
        """What became of the audio in the end; what is on its way has no fate yet."""
        participant, fate_s = self.participant, self._house.metrics.fate_s
        before, now = participant.counted_fates, participant.fates()
        participant.counted_fates = now
        fate_s.labels("transcribed").inc((now.transcribed - before.transcribed) / SAMPLE_RATE)
        fate_s.labels("silence").inc((now.silence - before.silence) / SAMPLE_RATE)
        for reason, samples in now.dropped.items():
            dropped = samples - before.dropped.get(reason, 0)
            fate_s.labels(reason.value).inc(dropped / SAMPLE_RATE)

    async def _listen(self) -> None:
        """The only glue between media and transcriber."""
        end_sample: int | None = None
        while True:
            try:
                chunk = await self.peer.feed.get()
            except FeedEnded:
                break
            if chunk is None:
                self._pause()
                continue
            missing = _missing(chunk, end_sample)
            end_sample = chunk.end_sample
            await self._house.turns.take()
            if not self.participant.muted:
                with self._house.turns.measured():
                    self._stream(chunk).push(
                        chunk.start_sample, chunk.samples, chunk.received_at, missing
                    )
                self._note_speaking()

    async def _flush(self) -> None:
        self._pause()
        stream = self.participant.stream
        if stream is None or self.participant.peer is not self.peer:
            return
        try:
            async with asyncio.timeout(_FLUSH_S):
                await stream.drain()
        except TimeoutError:
            log.warning("finals were not flushed in time", extra={"room": self._room.name})
            if self.participant.has_left or not self.participant.outlives_peer:
                stream.give_up()  # nobody will ask for them: what is missing is said

    async def _watch(self) -> None:
        """Say what became of the peer's channels, and give up a peer that never connects."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S) as limit:
                async for event in self.peer.events:
                    if event is PeerEvent.CONNECTED:
                        limit.reschedule(None)
                    elif event is PeerEvent.FLOODED:
                        self._house.limits.hit("channel_bytes_per_s")
                        self._tell("flooded", "the data channel is for captions, not for you")
                        self._room.leave(self.participant, "flooded")
                    elif event is PeerEvent.CHANNEL_REFUSED:
                        self._tell("bad_channel", "the data channel for captions is named captions")
        except TimeoutError:
            self.peer.end_audio()

    def _pause(self) -> None:
        if self.participant.stream is not None:
            self.participant.stream.pause()
        self._note_speaking()

    def _stream(self, chunk: PcmChunk) -> SpeakerStream:
        participant = self.participant
        if participant.stream is None:
            participant.stream = self._new_stream(0)
        if participant.first_audio_at is None:
            participant.first_audio_at = chunk.received_at - chunk.end_sample / SAMPLE_RATE
            participant.began_at = time.time() - (time.monotonic() - participant.first_audio_at)
        return participant.stream

    def _new_stream(self, utterances_before: int) -> SpeakerStream:
        participant = self.participant
        rooms = self._house.settings.rooms
        return SpeakerStream(
            participant.stream_id,
            self._house.engine,
            make_vad(self._house.settings.transcriber.vad),
            Hearing(
                participant.language,
                rooms.languages_of(self._room.name, self._house.engine.status.info.languages),
                rooms.glossary_of(self._room.name),
            ),
            lambda said: self._room.publish(participant, said),
            time.monotonic,
            utterances_before,
            lambda reason: self._house.metrics.never_said.labels(reason.value).inc(),
        )

    def _note_speaking(self) -> None:
        stream = self.participant.stream
        speaking = stream is not None and stream.is_speaking and not self.participant.muted
        if speaking != self.participant.speaking:
            self.participant.speaking = speaking
            self._room.announce(self.participant)

    def _start_over(self) -> None:
        """The next peer of this person gets a new stream; utterances are counted on."""
        stream = self.participant.stream
        if stream is not None:
            try:
                stream.give_up()
            except Exception:
                # what failed the speaker may fail this too; the person is told below
                log.warning("a failed speaker's last words stay as they were")
            stream.close()
            self.participant.past_fates = self.participant.fates()
            self.participant.counted_frames = (0, 0)
            self.participant.stream = self._new_stream(stream.utterances)
        self._note_speaking()
        self._tell("speaker_failed", "your audio could not be processed; join again to go on")

    def _tell(self, code: str, message: str) -> None:
        retryable = code == "speaker_failed"
        self.participant.send(Error(code=code, message=message, retryable=retryable))


def _missing(chunk: PcmChunk, end_sample: int | None) -> GapReason | None:
    """Why audio before a chunk was lost; None where none was."""
    if chunk.jump is Jump.NETWORK:
        return GapReason.NETWORK
    if chunk.jump is Jump.SILENCE or end_sample is None or chunk.start_sample == end_sample:
        return None
    # The track marks its own jumps: what else is missing, the feed dropped.
    return GapReason.OVERLOAD

"""From the transcriber's words to the wire's: samples become seconds here, and only here."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from server.store import StoredEvent
from signaling.messages import CaptionMessage, EngineSummary, GapMessage, WordEntry
from transcriber.account import Fates
from transcriber.transcript import TranscriptGap, TranscriptSegment, TranscriptWord
from transcriber.types import SAMPLE_RATE, Caption, EngineStatus, Gap, GapReason

if TYPE_CHECKING:
    from server.participant import Participant


def caption_message(
    seq: int, room: str, participant: "Participant", caption: Caption
) -> CaptionMessage:
    return CaptionMessage(
        seq=seq,
        room=room,
        participant=participant.participant,
        name=participant.name,
        segment=f"{participant.participant}-{caption.utterance}",
        revision=caption.revision,
        stable=caption.stable,
        tentative=caption.tentative,
        final=caption.is_final,
        start=_seconds(caption.start_sample),
        end=_seconds(caption.end_sample),
        language=caption.language,
        words=tuple(
            WordEntry(
                word=word.text,
                start=_seconds(word.start_sample),
                end=_seconds(word.end_sample),
                confidence=word.confidence,
                voice=word.voice,
            )
            for word in caption.words
        ),
        latency_ms=round(caption.timing.latency_s * 1000),
        spoken_at=iso(participant.began_at + caption.start_sample / SAMPLE_RATE),
    )


def gap_message(seq: int, room: str, participant: "Participant", gap: Gap) -> GapMessage:
    return GapMessage(
        seq=seq,
        room=room,
        participant=participant.participant,
        name=participant.name,
        start=_seconds(gap.start_sample),
        end=_seconds(gap.end_sample),
        reason=gap.reason.value,
    )


def transcript_segment(message: CaptionMessage, spoken_at: float) -> TranscriptSegment:
    """A final as it is kept; `spoken_at` is the unix time of its start."""
    return TranscriptSegment(
        segment=message.segment,
        participant=message.participant,
        name=message.name,
        start=message.start,
        end=message.end,
        text=message.stable,
        language=message.language,
        words=tuple(
            TranscriptWord(word.word, word.start, word.end, word.confidence, word.voice)
            for word in message.words
        ),
        spoken_at=spoken_at,
        revision=message.revision,
    )


def stored_message(room: str, stored: StoredEvent) -> CaptionMessage | GapMessage:
    """A final or a gap as it was sent, from the store."""
    event = stored.event
    if isinstance(event, TranscriptGap):
        return GapMessage(
            seq=stored.seq,
            room=room,
            participant=event.participant,
            name="",
            start=event.start,
            end=event.end,
            reason=event.reason,
        )
    return CaptionMessage(
        seq=stored.seq,
        room=room,
        participant=event.participant,
        name=event.name,
        segment=event.segment,
        revision=event.revision,
        stable=event.text,
        tentative="",
        final=True,
        start=event.start,
        end=event.end,
        language=event.language,
        words=tuple(
            WordEntry(word=w.word, start=w.start, end=w.end, confidence=w.confidence, voice=w.voice)
            for w in event.words
        ),
        latency_ms=0,  # a replay; how late it once was is not kept
        spoken_at=iso(event.spoken_at),
    )


def iso(unix: float) -> str:
    """UTC with milliseconds, as everywhere on the wire."""
    moment = datetime.fromtimestamp(unix, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def engine_summary(status: EngineStatus, language: str) -> EngineSummary:
    return EngineSummary(
        name=status.info.name,
        state=status.state.value,
        model=status.info.model,
        languages=status.info.languages,
        language=language,
        note=status.info.note,
        detects=status.info.detects,
    )


def _seconds(sample: int) -> float:
    return round(sample / SAMPLE_RATE, 3)


def fates(of: Fates) -> dict[str, object]:
    """Where a speaker's audio went, in samples; what is named sums to `received`."""
    return {
        "received": of.received,
        "transcribed": of.transcribed,
        "silence": of.silence,
        "pending": of.pending,
        "dropped": {reason.value: of.dropped.get(reason, 0) for reason in GapReason},
    }

"""The canonical transcript of a room, and its exports: JSON, SRT, WebVTT, plain text.

Pure. It owns the shapes that leave this house and their escaping, and refuses to know where
segments come from or where exports go. Time comes in as numbers: `start` and `end` are seconds
since the speaker's first audio, `spoken_at` is the unix time at which the segment was begun and
alone orders segments of different speakers.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

# A caption shorter than this flashes by unread; one word spoken alone lasts about 0.2 s.
LEAST_CUE_MS = 500

_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class TranscriptWord:
    word: str
    start: float
    end: float
    confidence: float
    voice: str = ""  # of several at one microphone, where they were told apart


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """One final. `revision` is the one it was captioned with, so that a replay from the store
    outranks the tentative revisions that a reader may have seen; exports leave it out."""

    segment: str
    participant: str
    name: str
    start: float
    end: float
    text: str
    language: str
    words: tuple[TranscriptWord, ...]
    spoken_at: float
    revision: int = 0


@dataclass(frozen=True, slots=True)
class TranscriptGap:
    """Audio of one participant that was lost, and why."""

    participant: str
    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """A room as it was spoken; `ended_at` is None while it lives. Times of the room are unix."""

    room: str
    started_at: float
    ended_at: float | None
    language: str
    participants: tuple[tuple[str, str], ...]
    segments: tuple[TranscriptSegment, ...]
    gaps: tuple[TranscriptGap, ...]


def to_json(transcript: Transcript) -> dict[str, object]:
    """The canonical shape. `text` is the texts alone, one line per segment, without names."""
    segments = _in_order(transcript)
    return {
        "version": 1,
        "room": transcript.room,
        "started_at": _iso(transcript.started_at),
        "ended_at": None if transcript.ended_at is None else _iso(transcript.ended_at),
        "language": transcript.language,
        "participants": [
            {"participant": participant, "name": name}
            for participant, name in transcript.participants
        ],
        "segments": [_segment_json(segment) for segment in segments],
        "gaps": [
            {
                "participant": gap.participant,
                "start": _rounded(gap.start),
                "end": _rounded(gap.end),
                "reason": gap.reason,
            }
            for gap in transcript.gaps
        ],
        "text": "\n".join(line for segment in segments if (line := _one_line(segment.text))),
    }


def to_srt(transcript: Transcript) -> str:
    """SubRip. It has no escapes, so an arrow inside a text becomes a single character."""
    return "".join(
        f"{number}\n"
        f"{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        f"{f'{cue.name}: {cue.text}'.replace('-->', '→')}\n\n"
        for number, cue in enumerate(_cues(transcript), start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT, one voice span per cue."""
    blocks = ["WEBVTT"]
    for cue in _cues(transcript):
        name, text = cue.name.translate(_VTT_ESCAPES), cue.text.translate(_VTT_ESCAPES)
        times = f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}"
        # the one arrow that escaping leaves: a name that ends in "--"; parsers trim the space
        voice = f"<v {name}>".replace("-->", "-- >")
        blocks.append(f"{times}\n{voice}{text}")
    return "\n\n".join(blocks) + "\n"


def to_text(transcript: Transcript) -> str:
    """One line per segment: `[hh:mm:ss] Name: text`, counted from the room's start."""
    return "".join(
        f"[{_hours_minutes_seconds(cue.start_ms)}] {cue.name}: {cue.text}\n"
        for cue in _cues(transcript)
    )


class _Cue(NamedTuple):
    start_ms: int
    end_ms: int
    name: str
    text: str


def _cues(transcript: Transcript) -> Iterator[_Cue]:
    """What can be shown, in order of time: one line of text each, never empty, never backwards."""
    for segment in _in_order(transcript):
        text = _one_line(segment.text)
        if not text:
            continue
        # a speaker's clock may stand a little before the room's
        start_ms = max(0, round((segment.spoken_at - transcript.started_at) * 1000))
        spoken_ms = round((segment.end - segment.start) * 1000)
        name = _one_line(segment.name) or _one_line(segment.participant) or "?"
        yield _Cue(start_ms, start_ms + max(LEAST_CUE_MS, spoken_ms), name, text)


def _in_order(transcript: Transcript) -> list[TranscriptSegment]:
    return sorted(transcript.segments, key=lambda segment: segment.spoken_at)


def _one_line(text: str) -> str:
    """Every run of white space, line ends included, as one space; no control characters, and
    nothing that UTF-8 cannot carry."""
    words = " ".join(text.split())
    return "".join(c for c in words if unicodedata.category(c) not in ("Cc", "Cs")).strip()


def _segment_json(segment: TranscriptSegment) -> dict[str, object]:
    return {
        "segment": segment.segment,
        "participant": segment.participant,
        "name": segment.name,
        "start": _rounded(segment.start),
        "end": _rounded(segment.end),
        "spoken_at": _iso(segment.spoken_at),
        "text": segment.text,
        "language": segment.language,
        "words": [
            {
                "word": word.word,
                "start": _rounded(word.start),
                "end": _rounded(word.end),
                "confidence": _rounded(word.confidence),
                **({"voice": word.voice} if word.voice else {}),
            }
            for word in segment.words
        ],
    }


def _rounded(value: float) -> float:
    # milliseconds are all that the clocks behind these numbers can tell
    return round(value, 3)


def _iso(unix: float) -> str:
    moment = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _clock(ms: int, point: str) -> str:
    return f"{_hours_minutes_seconds(ms)}{point}{ms % 1000:03}"


def _hours_minutes_seconds(ms: int) -> str:
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"

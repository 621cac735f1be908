"""The words of the transcriber: what goes in, between and out. Pure data.

A sample position on the speaker's own 16 kHz clock is the only time in here. `(stream,
utterance, revision)` names a caption everywhere.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000

StreamId = NewType("StreamId", str)
# 16 bit, as the decoder gives it and the worker is sent it
Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Window:
    """Audio of one utterance, so far or whole, to be transcribed."""

    stream: StreamId
    utterance: int
    revision: int
    start_sample: int
    samples: Samples
    is_final: bool
    language: str  # empty: the one that is heard
    prompt: str = ""  # what the speaker said before
    # utterances whose audio was appended because the worker was behind; their own finals
    # are empty
    absorbed: tuple[int, ...] = ()
    glossary: str = ""  # words that are likely here
    detect: tuple[str, ...] = ()  # languages among which the engine is to say what it hears

    @property
    def end_sample(self) -> int:
        return self.start_sample + len(self.samples)


@dataclass(frozen=True, slots=True)
class Word:
    """`text` as it stands in the sentence, positions on the speaker's clock."""

    text: str
    start_sample: int
    end_sample: int
    confidence: float
    voice: str = ""  # which of several people at one microphone, where that was asked for


@dataclass(frozen=True, slots=True)
class Evidence:
    """How sure an engine is of a text; None where it does not say."""

    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    heard_language: str = ""
    heard_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an engine heard in a window."""

    stream: StreamId
    utterance: int
    revision: int
    is_final: bool
    text: str
    language: str
    words: tuple[Word, ...] = ()
    absorbed: tuple[int, ...] = ()
    lost: "GapReason | None" = None  # never transcribed, and why
    evidence: Evidence = Evidence()


@dataclass(frozen=True, slots=True)
class Caption:
    """A revision of an utterance as it is shown."""

    stream: StreamId
    utterance: int
    revision: int
    stable: str
    tentative: str
    is_final: bool
    start_sample: int
    end_sample: int
    language: str
    words: tuple[Word, ...]
    timing: "Timing"


@dataclass(frozen=True, slots=True)
class Timing:
    """How late a caption is; seconds, None where it does not apply."""

    latency_s: float  # since the last sample in it was heard
    first_text_s: float | None = None  # since speech began; on an utterance's first text
    final_s: float | None = None  # since speech ended; on finals
    words_shown: int = 0
    words_taken_back: int = 0


class GapReason(StrEnum):
    OVERLOAD = "overload"
    NETWORK = "network"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that was lost, and why."""

    stream: StreamId
    start_sample: int
    end_sample: int
    reason: GapReason


class EngineState(StrEnum):
    STARTING = "starting"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine runs and what to expect of it."""

    name: str
    model: str
    languages: tuple[str, ...]
    note: str
    detects: bool = False  # can say which language is spoken


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine as the pages see it."""

    state: EngineState
    info: EngineInfo
    progress: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch cost; for the metrics."""

    windows: int
    audio_s: float
    engine_s: float
    queue_age_s: float
    waiting: int
    batch_limit: int = 0

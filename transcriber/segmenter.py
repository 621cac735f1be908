"""Cuts a speaker's audio into utterances, and an utterance into windows.

An utterance begins where speech is probable (3 of 5 frames), with 300 ms before it kept,
and ends 500 ms after it stops. From 10 s on it is cut at a pause between words, at 28 s
in any case; a cut through speech overlaps 200 ms with the next. Holds no more audio than
the utterance it is in. Pure: the sample position is the only clock.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from transcriber.types import SAMPLE_RATE, Samples
from transcriber.vad import FRAME_SAMPLES


def _samples(ms: int) -> int:
    return ms * SAMPLE_RATE // 1000


SPEECH = 0.5
SILENCE = 0.35
_BEGIN_FRAMES, _BEGIN_OF = 3, 5
PRE_ROLL = _samples(300)
END_SILENCE = _samples(500)
_TAIL = _samples(200)  # of the silence after an utterance, kept for the engine
_CUT_FROM = _samples(10_000)
_CUT_AT = _samples(28_000)
_LEAST_PIECE = _samples(3_000)
_PAUSE_FRAMES = 5  # 160 ms, longer than a fricative
_SHORT_PAUSE_FRAMES = 2
_CUT_SOON = _samples(20_000)
_OVERLAP = _samples(200)


@dataclass(frozen=True, slots=True)
class Cut:
    """Audio of an utterance: so far, or whole."""

    utterance: int
    start_sample: int
    samples: Samples
    is_final: bool
    speech_start: int
    speech_end: int
    overlaps: bool  # its start repeats the end of the utterance before

    @property
    def end_sample(self) -> int:
        return self.start_sample + len(self.samples)


class Segmenter:
    """Of one speaker. `push` returns finals; interims are asked for with `interim`."""

    def __init__(self, utterances_before: int = 0) -> None:
        self._utterance = utterances_before
        self._pieces: deque[Samples] = deque()
        self._held_from = 0  # position of the first sample held
        self._held = 0
        self._judged = 0  # position up to which probabilities came
        self._recent: deque[bool] = deque(maxlen=_BEGIN_OF)
        self._speaking = False
        self._overlaps = False
        self._start = 0
        self._speech_start = 0
        self._speech_end = 0
        self._quiet_frames: list[bool] = []  # since `_start`, for the search of a pause

    @property
    def is_speaking(self) -> bool:
        return self._speaking

    @property
    def utterance(self) -> int:
        """Number of the utterance that is being spoken, or was last."""
        return self._utterance

    @property
    def speech_start(self) -> int:
        return self._speech_start

    @property
    def end_sample(self) -> int:
        return self._held_from + self._held

    @property
    def held_from(self) -> int:
        """What is before this is gone: no utterance will have it."""
        return self._held_from

    def restart(self, start_sample: int) -> list[Cut]:
        """Go on at another position; return the utterance this ends."""
        finals = self.finish()
        self._drop_to(self.end_sample)
        self._held_from = self._judged = start_sample
        self._recent.clear()
        return finals

    def push(self, samples: Samples, probabilities: list[float]) -> list[Cut]:
        """Take what follows, and the probabilities of the frames it completes."""
        self._pieces.append(samples)
        self._held += len(samples)
        finals: list[Cut] = []
        for probability in probabilities:
            self._judged += FRAME_SAMPLES
            if self._speaking:
                finals.extend(self._go_on(probability))
            else:
                self._maybe_begin(probability)
        if not self._speaking:
            self._drop_to(self._judged - PRE_ROLL - _BEGIN_OF * FRAME_SAMPLES)
        return finals

    def interim(self) -> Cut | None:
        """The utterance so far; None while nobody speaks."""
        return self._cut(self.end_sample, is_final=False) if self._speaking else None

    def finish(self) -> list[Cut]:
        """End the utterance now: muted, paused, gone."""
        if not self._speaking:
            return []
        return [self._end(self.end_sample)]

    def _maybe_begin(self, probability: float) -> None:
        self._recent.append(probability >= SPEECH)
        if sum(self._recent) < _BEGIN_FRAMES:
            return
        first = len(self._recent) - list(self._recent).index(True)
        self._begin(self._judged - first * FRAME_SAMPLES)

    def _begin(self, speech_start: int) -> None:
        self._speaking = True
        self._utterance += 1
        self._overlaps = False
        self._start = max(self._held_from, speech_start - PRE_ROLL)
        # a frame may have begun before a pause that let go of it
        self._speech_start = max(self._start, speech_start)
        self._speech_end = self._judged
        self._drop_to(self._start)
        self._quiet_frames = [False] * ((self._judged - self._start) // FRAME_SAMPLES)

    def _go_on(self, probability: float) -> list[Cut]:
        quiet = probability < SILENCE
        self._quiet_frames.append(quiet)
        if not quiet:
            self._speech_end = self._judged
        elif self._judged - self._speech_end >= END_SILENCE:
            return [self._end(self._speech_end + _TAIL)]
        length = self._judged - self._start
        # A pause that no word followed yet may be the end, with nothing left to say after a cut.
        if length < _CUT_FROM or (quiet and length < _CUT_AT):
            return []
        if (pause := self._find_pause(length)) is not None:
            return [self._split(pause, overlap=0)]
        if length >= _CUT_AT:
            return [self._split(self._judged, overlap=_OVERLAP)]
        return []

    def _find_pause(self, length: int) -> int | None:
        """Middle of the longest pause that is long enough for how late it is, if any."""
        least = 1 if length >= _CUT_AT else _PAUSE_FRAMES
        if _CUT_SOON <= length < _CUT_AT:
            least = _SHORT_PAUSE_FRAMES
        best, best_middle, run = 0, 0, 0
        for index, quiet in enumerate(self._quiet_frames):
            run = run + 1 if quiet else 0
            middle = self._judged - (
                (len(self._quiet_frames) - index - 1) * FRAME_SAMPLES + run * FRAME_SAMPLES // 2
            )
            if run > best and middle - self._start >= _LEAST_PIECE:
                best, best_middle = run, middle
        return best_middle if best >= least else None

    def _split(self, at: int, overlap: int) -> Cut:
        """End the utterance at `at` and begin the next there."""
        speech_end, self._speech_end = self._speech_end, min(self._speech_end, at)
        final = self._cut(at, is_final=True)
        self._utterance += 1
        self._start = self._speech_start = at - overlap
        self._speech_end = max(speech_end, self._start)
        self._overlaps = overlap > 0
        kept = (self._judged - self._start) // FRAME_SAMPLES
        self._quiet_frames = self._quiet_frames[len(self._quiet_frames) - kept :]
        self._drop_to(self._start)
        return final

    def _end(self, at: int) -> Cut:
        final = self._cut(min(at, self.end_sample), is_final=True)
        self._speaking = False
        self._recent.clear()
        self._drop_to(final.end_sample)
        return final

    def _cut(self, end: int, *, is_final: bool) -> Cut:
        audio = np.concatenate(self._pieces)[: end - self._held_from]
        return Cut(
            self._utterance,
            self._start,
            audio,
            is_final,
            self._speech_start,
            min(self._speech_end, end),
            self._overlaps,
        )

    def _drop_to(self, position: int) -> None:
        """Let go of audio before `position`."""
        excess = min(position - self._held_from, self._held)
        while excess > 0:
            first = self._pieces.popleft()
            if len(first) > excess:
                self._pieces.appendleft(first[excess:])
            dropped = min(len(first), excess)
            self._held_from += dropped
            self._held -= dropped
            excess -= dropped

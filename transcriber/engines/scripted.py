"""An engine whose text is a function of the audio's position and level; for tests and load.

Every half second of a speaker's clock has a word of its own; a slot that is loud enough
yields it, a very loud one in capitals. So two windows over the same audio agree, and a
missing or moved piece of audio shows.
"""

import time
from collections.abc import Hashable, Sequence

from transcriber.engines import Tell
from transcriber.types import SAMPLE_RATE, EngineInfo, Hypothesis, Samples, Window, Word
from transcriber.vad import rms

SLOT_SAMPLES = SAMPLE_RATE // 2
# fmt: off
WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet",
    "jetty", "knoll", "larch", "maple", "north", "oasis", "pearl", "quail", "ridge",
    "slate", "thorn", "umber", "valley", "willow", "xenon", "yield", "zephyr",
)
# fmt: on
QUIET_RMS = 0.01
LOUD_RMS = 0.2


def word_at(slot: int) -> str:
    """The word of a half second."""
    return WORDS[slot % len(WORDS)]


class ScriptedEngine:
    info = EngineInfo(
        "scripted",
        "positions",
        ("en", "de", "fr", "es"),
        "A test engine: its words follow the clock, not what is said.",
    )
    batch_limit = 32
    longest_s = 60.0

    def __init__(self, seconds_per_batch: float = 0.0) -> None:
        self._seconds_per_batch = seconds_per_batch

    def load(self, tell: Tell) -> None:
        """Nothing to load."""

    def warm_up(self) -> None:
        """Nothing is made on first use."""

    def kind(self, window: Window) -> Hashable:
        return None

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        if self._seconds_per_batch:
            time.sleep(self._seconds_per_batch)
        return [self._hear(window) for window in windows]

    def close(self) -> None:
        """Nothing to close."""

    def _hear(self, window: Window) -> Hypothesis:
        words = []
        first = -(-window.start_sample // SLOT_SAMPLES)
        for slot in range(first, window.end_sample // SLOT_SAMPLES):
            start = slot * SLOT_SAMPLES
            word = _say(slot, window.samples[start - window.start_sample :][:SLOT_SAMPLES])
            if word:
                words.append(Word(word, start, start + SLOT_SAMPLES, 1.0))
        return Hypothesis(
            window.stream,
            window.utterance,
            window.revision,
            window.is_final,
            " ".join(w.text for w in words),
            window.language,
            tuple(words) if window.is_final else (),
            window.absorbed,
        )


def _say(slot: int, samples: Samples) -> str:
    level = rms(samples)
    if level < QUIET_RMS:
        return ""
    return word_at(slot).upper() if level >= LOUD_RMS else word_at(slot)

"""The Whisper that the repo made, and sentences of its words with the synthesiser's times."""

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.tiny_whisper.synth import SynthesiserMissing, Voice, synthesise
from transcriber.types import Samples

MODEL = Path(__file__).parent / "models" / "tiny-whisper"


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    samples: Samples
    spans: tuple[tuple[int, int], ...]  # of its words, in samples


@functools.cache
def say(text: str, voice: str = "slt") -> Said:
    """Skips the test where the synthesiser is missing."""
    try:
        speech = synthesise(text, Voice(voice))
    except SynthesiserMissing as missing:
        pytest.skip(str(missing))
    return Said(text, speech.samples, tuple((word.start, word.end) for word in speech.words))

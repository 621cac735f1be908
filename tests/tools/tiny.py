"""Where the small model lies, and speech for it."""

from pathlib import Path

import pytest

from tools.tiny_whisper.synth import Speech, SynthesiserMissing, Voice, synthesise

MODEL = Path(__file__).parents[1] / "models/tiny-whisper"


def said(text: str, voice: str = "slt") -> Speech:
    """Skips the test where the synthesiser is missing."""
    try:
        return synthesise(text, Voice(voice))
    except SynthesiserMissing as error:
        pytest.skip(str(error))

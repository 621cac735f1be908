"""Sound for tests: sentences by flite, tones that the scripted engine hears as words."""

import functools
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

OPEN_THE_MEETING = "please open the meeting and read the agenda for today"


@functools.cache
def spoken(text: str, voice: str = "slt", rate: int = 16_000) -> Samples:
    """A sentence spoken by flite. Skips the test where flite is missing."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(file)], check=True)
        with wave.open(str(file)) as sound:
            pcm = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            own_rate = sound.getframerate()
    floats = pcm.astype(np.float32) / np.float32(32768)
    resampled: Samples = soxr.resample(floats, own_rate, rate).astype(np.float32)
    return resampled


def tone(seconds: float, rate: int = 16_000, level: float = 0.1) -> Samples:
    """A sound that every detector but Silero takes for speech; `level` is its peak."""
    time = np.arange(int(seconds * rate)) / rate
    # slow beats keep an adaptive noise floor from rising to it
    beats = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    return (level * beats * np.sin(2 * np.pi * 300 * time)).astype(np.float32)


def silence(seconds: float, rate: int = 16_000) -> Samples:
    return np.zeros(int(seconds * rate), np.float32)


def write_wav(path: Path, samples: Samples, rate: int = 48_000) -> Path:
    """A WAV that Chromium takes for a microphone."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def words_right(heard: str, said: str) -> float:
    """Share of the words of `said` that stand in `heard`, in their order."""
    got, want = heard.lower().split(), said.lower().split()
    best = [0] * (len(want) + 1)
    for word in got:
        for index in range(len(want), 0, -1):
            if want[index - 1] == word:
                best[index] = max(best[index], best[index - 1] + 1)
        for index in range(1, len(want) + 1):
            best[index] = max(best[index], best[index - 1])
    return best[-1] / len(want)

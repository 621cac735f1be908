"""Sound for tests: sentences by flite, tones that the scripted engine hears as words."""

import functools
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.int16]

FULL_SCALE = 32_768

OPEN_THE_MEETING = "please open the meeting and read the agenda for today"


def pcm(values: NDArray[np.floating[Any]]) -> Samples:
    """16 bit of values between -1 and 1; what is beyond is clipped."""
    clipped: Samples = np.clip(np.rint(values * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(
        np.int16
    )
    return clipped


def level(samples: Samples) -> float:
    """The RMS, as a share of full scale."""
    return float(np.sqrt(np.mean(np.square(samples / FULL_SCALE))))


def peak(samples: Samples) -> float:
    """The largest sample, as a share of full scale."""
    return float(np.abs(samples / FULL_SCALE).max())


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    return pcm(soxr.resample(samples / FULL_SCALE, rate, wanted))


def at_16k(samples: Samples, rate: int = 48_000) -> Samples:
    return resampled(samples, rate, 16_000)


@functools.cache
def spoken(text: str, voice: str = "slt", rate: int = 16_000) -> Samples:
    """A sentence spoken by flite. Skips the test where flite is missing."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(file)], check=True)
        with wave.open(str(file)) as sound:
            said = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
            own_rate = sound.getframerate()
    return resampled(said, own_rate, rate)


def tone(seconds: float, rate: int = 16_000, level: float = 0.1) -> Samples:
    """A sound that every detector but Silero takes for speech; `level` is its peak."""
    time = np.arange(int(seconds * rate)) / rate
    # slow beats keep an adaptive noise floor from rising to it
    beats = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    return pcm(level * beats * np.sin(2 * np.pi * 300 * time))


def chirp(seconds: float, rate: int = 16_000, level: float = 0.5) -> Samples:
    """A tone that rises from 200 Hz to 3 kHz: unlike itself at any other moment."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (200 * time + (3_000 - 200) / (2 * seconds) * time**2)
    return pcm(level * np.sin(phase))


def silence(seconds: float, rate: int = 16_000) -> Samples:
    return np.zeros(int(seconds * rate), np.int16)


def write_wav(path: Path, samples: Samples, rate: int = 48_000) -> Path:
    """A WAV that Chromium takes for a microphone."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())
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

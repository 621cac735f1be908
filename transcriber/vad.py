"""Voice activity: the probability of speech per frame of 32 ms.

Two detectors: Silero (the ONNX model in faster-whisper's wheel, one state per speaker, all
frames of a chunk in one call) behind a gate on energy that costs nothing, and plain energy
for machines where even that is too much. Neither knows time.
"""

import functools
import math
from collections.abc import Callable
from importlib import resources
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from transcriber.types import Samples

FRAME_SAMPLES = 512
# Quieter than this is no speech that an engine could use (-52 dBFS).
SILENCE_RMS = 0.0025

_FULL_SCALE = 32_768
_UNIT = np.float32(1 / _FULL_SCALE)
_CONTEXT_SAMPLES = 64  # Silero sees the end of the frame before
_HANGOVER_FRAMES = 16  # half a second: a pause within a sentence keeps Silero's state
_SPEECH_OVER_NOISE_DB = 9.0


Frames = NDArray[np.float32]


class Vad(Protocol):
    """One speaker's detector. `frames_skipped` of `frames_seen` were too quiet to look at."""

    frames_seen: int
    frames_skipped: int

    def push(self, samples: Samples) -> list[float]:
        """Take samples; return a probability for each frame that is complete."""
        ...

    def reset(self) -> None:
        """What comes next does not follow on what came before."""
        ...


def rms(samples: Samples) -> float:
    """How loud, as a share of full scale."""
    if not len(samples):
        return 0.0
    values = samples.astype(np.float32)
    return math.sqrt(float(np.dot(values, values)) / len(values)) / _FULL_SCALE


class _Frames:
    """Cuts samples into frames and keeps the rest."""

    def __init__(self) -> None:
        self._rest = np.empty(0, np.int16)

    def push(self, samples: Samples) -> Frames:
        """Frames of values between -1 and 1, each behind room for the end of the one before, in
        which anything may be. They are there until the next call, of whomever."""
        rest = len(self._rest)
        count = (rest + len(samples)) // FRAME_SAMPLES
        joined, framed = _ROOM.for_frames(count)
        if not count:
            self._rest = np.concatenate([self._rest, samples])
            return framed
        whole = count * FRAME_SAMPLES
        joined[:rest], joined[rest:whole] = self._rest, samples[: whole - rest]
        self._rest = samples[whole - rest :].copy()  # not all of `samples` with it
        frames = framed[:, _CONTEXT_SAMPLES:]
        frames[:] = joined[:whole].reshape(-1, FRAME_SAMPLES)
        frames *= _UNIT
        return framed

    def reset(self) -> None:
        self._rest = np.empty(0, np.int16)


class _Room:
    """Where frames lie, everyone's by turns: ten times a second for each who speaks, the allocator
    would give and take as much. For one thread, which looks at them before it does another's."""

    _FRAMES = 8  # more than there are in a chunk

    def __init__(self) -> None:
        self._joined = np.empty(self._FRAMES * FRAME_SAMPLES, np.int16)
        self._framed = np.empty((self._FRAMES, _CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)

    def for_frames(self, count: int) -> tuple[Samples, Frames]:
        if count > self._FRAMES:
            return (
                np.empty(count * FRAME_SAMPLES, np.int16),
                np.empty((count, _CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32),
            )
        return self._joined, self._framed[:count]


_ROOM = _Room()


def _levels(framed: Frames) -> Frames:
    """The RMS of each."""
    frames = framed[:, _CONTEXT_SAMPLES:]
    levels: Frames = np.sqrt(np.vecdot(frames, frames) / FRAME_SAMPLES)
    return levels


class EnergyVad:
    """Speech is what stands well above the quietest that was heard lately."""

    def __init__(self) -> None:
        self._frames = _Frames()
        self._floor_db = -60.0
        self.frames_seen = 0
        self.frames_skipped = 0

    def push(self, samples: Samples) -> list[float]:
        levels = _levels(self._frames.push(samples)).tolist()
        self.frames_seen += len(levels)
        return [self._judge(level) for level in levels]

    def reset(self) -> None:
        self._frames.reset()

    def _judge(self, level: float) -> float:
        level_db = 20 * math.log10(max(level, 1e-5))
        # Falls at once, rises by 1.5 dB a second: speech does not lift it, a fan does.
        self._floor_db = min(level_db, self._floor_db + 0.05) if level_db > -90 else self._floor_db
        if level < SILENCE_RMS:
            return 0.0
        over = level_db - max(self._floor_db, -60.0) - _SPEECH_OVER_NOISE_DB
        return 1 / (1 + math.exp(-over / 2))


class SileroVad:
    """Silero behind an energy gate: what is quieter costs nothing. `gate_rms` 0 opens it."""

    def __init__(self, gate_rms: float = SILENCE_RMS) -> None:
        self._run = _silero()
        self._gate_rms = gate_rms
        self._frames = _Frames()
        self._quiet = _HANGOVER_FRAMES
        self.frames_seen = 0
        self.frames_skipped = 0
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)

    def push(self, samples: Samples) -> list[float]:
        framed = self._frames.push(samples)
        if not len(framed):
            return []
        self.frames_seen += len(framed)
        loud = _levels(framed) >= self._gate_rms
        if not loud.any() and self._quiet >= _HANGOVER_FRAMES:
            self.frames_skipped += len(framed)
            return [0.0] * len(framed)
        if self._quiet >= _HANGOVER_FRAMES:
            self._clear_state()
        after = int(np.argmax(loud[::-1])) if loud.any() else self._quiet + len(framed)
        self._quiet = min(after, _HANGOVER_FRAMES)
        return self._infer(framed)

    def reset(self) -> None:
        self._frames.reset()
        self._clear_state()

    def _infer(self, framed: Frames) -> list[float]:
        framed[0, :_CONTEXT_SAMPLES] = self._context
        framed[1:, :_CONTEXT_SAMPLES] = framed[:-1, -_CONTEXT_SAMPLES:]
        self._context = framed[-1, -_CONTEXT_SAMPLES:].copy()
        probabilities, self._h, self._c = self._run(framed, self._h, self._c)
        return [float(p) for p in probabilities.reshape(-1)]

    def _clear_state(self) -> None:
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)


@functools.cache
def _silero() -> Callable[[Frames, Frames, Frames], tuple[Frames, Frames, Frames]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    # Its arena, which is the default, spares the allocator what lives within a run.
    # The file only: importing the package would load CTranslate2 and tokenizers too.
    assets = resources.files("faster_whisper.assets")
    model = next(f for f in assets.iterdir() if f.name.startswith("silero_vad"))
    session = onnxruntime.InferenceSession(
        model.read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def run(frames: Frames, h: Frames, c: Frames) -> tuple[Frames, Frames, Frames]:
        probabilities, h, c = session.run(None, {"input": frames, "h": h, "c": c})
        return probabilities, h.copy(), c.copy()  # what stays is not the arena's

    return run


def make_vad(name: Literal["silero", "energy"]) -> Vad:
    return SileroVad() if name == "silero" else EnergyVad()

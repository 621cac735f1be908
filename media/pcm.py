"""PCM on its way to the transcriber: 16 kHz, mono, 16 bit, in chunks of 100 ms.

Owns the sample rate, the downmix, the resampling (one stateful soxr stream per piece of
audio) and the cutting into chunks. Pure: no clock, no queue.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from media.timeline import Jump

SAMPLE_RATE = 16_000
CHUNK_SAMPLES = 1_600

# Chunks are cut from one buffer of so many: in a server each by itself would have pages of its own,
# which take longer than the copying (docs/decisions/0012). Five fill four of them.
_TOGETHER = 5

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class PcmChunk:
    """Up to 100 ms of one speaker, at its place on that speaker's clock."""

    start_sample: int
    samples: Samples
    received_at: float  # monotonic, when its last sample came
    jump: Jump | None = None  # why it does not follow on the chunk before it
    concealed: int = 0  # samples filled in for what was lost

    @property
    def end_sample(self) -> int:
        return self.start_sample + len(self.samples)


def downmix(interleaved: NDArray[np.int16], channels: int) -> Samples:
    """Mean of the channels."""
    if channels == 1:
        return interleaved
    mixed: Samples = interleaved.reshape(-1, channels).mean(axis=1).astype(np.int16)
    return mixed


class Downsampler:
    """One unbroken piece of audio from its own rate to 16 kHz."""

    def __init__(self, rate: int) -> None:
        self._stream = (
            None
            if rate == SAMPLE_RATE
            else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="int16", quality="MQ")
        )

    def push(self, samples: Samples) -> Samples:
        """Resample; what the filter still needs context for comes with the next call."""
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples)
        return resampled

    def flush(self) -> Samples:
        """Return what the filter still holds; the piece ends here."""
        if self._stream is None:
            return np.empty(0, np.int16)
        resampled: Samples = self._stream.resample_chunk(np.empty(0, np.int16), last=True)
        return resampled


class Chunker:
    """Cuts a piece of audio into chunks of 100 ms; the last one may be shorter."""

    def __init__(self, start_sample: int, jump: Jump | None) -> None:
        self._start = start_sample
        self._jump = jump
        self._buffer, self._first, self._length = _buffer(), 0, 0
        self._concealed = 0

    @property
    def end_sample(self) -> int:
        return self._start + self._length

    def conceal(self, samples: int) -> None:
        """Note that as many of the samples pushed next stand for lost ones."""
        self._concealed += samples

    def push(self, samples: Samples, now: float) -> list[PcmChunk]:
        """Take samples; return the chunks that are full."""
        full: list[PcmChunk] = []
        while len(samples):
            taken = samples[: CHUNK_SAMPLES - self._length]
            behind = self._first + self._length
            self._buffer[behind : behind + len(taken)] = taken
            self._length += len(taken)
            samples = samples[len(taken) :]
            if self._length == CHUNK_SAMPLES:
                full.append(self._cut(now))
        return full

    def flush(self, now: float) -> list[PcmChunk]:
        """Return the rest as a short chunk."""
        return [self._cut(now)] if self._length else []

    def _cut(self, now: float) -> PcmChunk:
        concealed = min(self._concealed, self._length)
        behind = self._first + self._length
        samples = self._buffer[self._first : behind]
        chunk = PcmChunk(self._start, samples, now, self._jump, concealed=concealed)
        self._start += self._length
        self._concealed -= concealed
        self._jump = None
        self._first, self._length = behind, 0
        if behind + CHUNK_SAMPLES > len(self._buffer):
            self._buffer, self._first = _buffer(), 0  # the one before is its chunks' now
        return chunk


def _buffer() -> Samples:
    return np.empty(_TOGETHER * CHUNK_SAMPLES, np.int16)

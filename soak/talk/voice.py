"""What a participant says: samples as a track of aiortc."""

import asyncio
import fractions

import av
import numpy as np
from aiortc import MediaStreamTrack
from numpy.typing import NDArray

RATE = 48_000
FRAME = 960

Samples = NDArray[np.int16]


class Voice(MediaStreamTrack):
    """Plays samples at 48 kHz in real time: again and again, or then silence, until stopped."""

    kind = "audio"
    is_muted = False  # silence goes out while the speech goes on

    def __init__(self, samples: Samples, *, repeats: bool = False) -> None:
        super().__init__()
        self.began_at: float | None = None  # by the loop's clock
        self._samples = samples
        self._repeats = repeats
        self._sent = 0

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self.began_at is None:
            self.began_at = loop.time()
        await asyncio.sleep(max(0.0, self.began_at + self._sent / RATE - loop.time()))
        piece = np.zeros(FRAME, np.int16) if self.is_muted else self._piece()
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self._sent
        frame.time_base = fractions.Fraction(1, RATE)
        self._sent += FRAME
        return frame

    def _piece(self) -> Samples:
        if self._repeats:
            at = np.arange(self._sent, self._sent + FRAME)
            return self._samples.take(at, mode="wrap")
        piece = self._samples[self._sent : self._sent + FRAME]
        return np.pad(piece, (0, FRAME - len(piece)))

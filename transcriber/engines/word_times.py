"""Words end where the voice ends: pauses are taken out of the times of an alignment.

A cross-attention's alignment gives each frame to some word: the first word has the silence before
it, and every other word the pause after it. Pure.
"""

from dataclasses import replace

import numpy as np

from transcriber.types import SAMPLE_RATE, Samples, Word

_FRAME = SAMPLE_RATE // 100
# The quieter parts of speech are some 30 dB below its loud ones.
_QUIET = 0.03
_LOUD_QUANTILE = 0.95
# A stop within a word is shorter.
_PAUSE_FRAMES = 10
_LEAST_FRAMES = 3


def without_pauses(
    words: tuple[Word, ...], samples: Samples, start_sample: int
) -> tuple[Word, ...]:
    """`samples` begin at `start_sample`."""
    frames = len(samples) // _FRAME
    if not frames:
        return words
    pieces = samples[: frames * _FRAME].astype(np.float32).reshape(frames, _FRAME)
    levels = np.sqrt(np.mean(np.square(pieces), axis=1))
    is_loud = levels > _QUIET * np.quantile(levels, _LOUD_QUANTILE)
    return tuple(_tightened(word, is_loud, start_sample) for word in words)


def _tightened(word: Word, is_loud: "np.ndarray[tuple[int], np.dtype[np.bool_]]", at: int) -> Word:
    first = max(0, (word.start_sample - at) // _FRAME)
    last = min(len(is_loud), -(-(word.end_sample - at) // _FRAME))
    loud = np.flatnonzero(is_loud[first:last])
    if not len(loud) or last - first <= _LEAST_FRAMES:
        return word
    before, after = int(loud[0]), last - first - 1 - int(loud[-1])
    start = word.start_sample + before * _FRAME if before >= _PAUSE_FRAMES else word.start_sample
    end = word.end_sample - after * _FRAME if after >= _PAUSE_FRAMES else word.end_sample
    return replace(word, start_sample=start, end_sample=max(start, end))

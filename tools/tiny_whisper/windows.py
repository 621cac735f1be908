"""Windows of speech as a live server cuts them, and what is right for each. Pure.

A word belongs to a window that holds all of it. Frames are the encoder's: 20 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tools.tiny_whisper.synth import Speech, Word

FRAME = 320
# a word that lacks less than this at the cut is whole
_TOLERANCE = 320


@dataclass(frozen=True, slots=True)
class Window:
    """Speech, its whole words, and those that were cut, which nobody need hear."""

    speech: Speech
    cut_words: tuple[Word, ...] = ()


def join(parts: Sequence[Speech], gaps: Sequence[int]) -> Speech:
    """One after the other; `gaps` are the silences before, between and after, in samples."""
    if len(gaps) != len(parts) + 1:
        raise ValueError("one gap more than parts")
    samples = [np.zeros(gaps[0], np.int16)]
    words: list[Word] = []
    at = gaps[0]
    for part, gap in zip(parts, gaps[1:], strict=True):
        words += [Word(w.text, w.start + at, w.end + at) for w in part.words]
        samples += [part.samples, np.zeros(gap, np.int16)]
        at += len(part.samples) + gap
    return Speech(np.concatenate(samples), tuple(words))


def cut(speech: Speech, start: int, end: int) -> Window:
    """What is heard from `start` to `end`."""
    whole: list[Word] = []
    partial: list[Word] = []
    for word in speech.words:
        if word.end <= start or word.start >= end:
            continue
        is_whole = word.start >= start - _TOLERANCE and word.end <= end + _TOLERANCE
        first, last = max(word.start, start) - start, min(word.end, end) - start
        (whole if is_whole else partial).append(Word(word.text, first, last))
    return Window(Speech(speech.samples[start:end], tuple(whole)), tuple(partial))


def frames(word: Word) -> tuple[int, int]:
    """The first frame of a word and the one after its last; at least one frame."""
    first = round(word.start / FRAME)
    return first, max(first + 1, round(word.end / FRAME))


def territories(words: Sequence[Word], count: int) -> list[tuple[int, int]]:
    """The frames each word may claim: with the pause after it, the first with that before.

    The model's alignment gives every frame to some word, so that the next word starts where
    it starts only if the pause is the one's before it.
    """
    starts = [frames(word)[0] for word in words]
    bounds = [0, *starts[1:], count]
    if words:
        bounds[-1] = min(count, frames(words[-1])[1])
    return list(pairwise(bounds)) if words else []

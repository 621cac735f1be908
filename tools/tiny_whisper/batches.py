"""Batches for training: windows of chance, their mel spectrograms, and what is right for each.

Every row of a batch is as long as the others, as Whisper has no mask; what is behind the speech
is silence, noise, or the zeros that faster-whisper puts behind its features.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray
from torch import Tensor

from tools.tiny_whisper import prompts, vocabulary
from tools.tiny_whisper.corpus import Utterance
from tools.tiny_whisper.synth import RATE, Speech
from tools.tiny_whisper.windows import FRAME, Window, cut, frames, join, territories
from tools.tiny_whisper.words import HOMOPHONES, WORDS

IGNORED = -100
NO_WORD = len(WORDS)
_WORD_INDEX = {word: index for index, word in enumerate(WORDS)}
# the share of a word's attention that is for the pause after it
_PAUSE_SHARE = 0.1
# how far behind the last word the end of the text looks
_END_FRAMES = 25

_FILTERS = torch.from_numpy(FeatureExtractor.get_mel_filters(RATE, 400, 80).astype(np.float32))
_HANN = torch.hann_window(400)

Sound = NDArray[np.float32]


def log_mels(samples: Tensor) -> Tensor:
    """[rows, samples] to [rows, 80, samples / 160], as Whisper has them."""
    spectrum = torch.stft(samples, 400, 160, window=_HANN, return_complex=True)[..., :-1]
    logs = (_FILTERS @ spectrum.abs().square()).clamp(min=1e-10).log10()
    loudest = logs.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0


@dataclass(frozen=True, slots=True)
class Row:
    """One window as it is heard, and the tokens before and in its transcript."""

    sound: Sound
    window: Window
    language: str
    prompt: tuple[int, ...]
    is_speech: bool
    has_zeros_behind: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """`looks` holds where the alignment heads ought to look, zeros where it does not matter."""

    mels: Tensor
    ids: Tensor
    labels: Tensor
    frame_words: Tensor
    looks: Tensor


class Windows:
    """Draws windows from the corpus."""

    def __init__(self, utterances: Sequence[Utterance], seed: int) -> None:
        self._rng = random.Random(seed)
        self._noise = np.random.default_rng(seed)
        self._kinds = {
            language: [u for u in utterances if u.language == language] for language in ("en", "fr")
        }
        self._kinds["names"] = [
            u for u in self._kinds["en"] if any(word.text in HOMOPHONES for word in u.speech.words)
        ]
        self._waiting: dict[str, list[Utterance]] = {"en": [], "fr": [], "names": []}

    def batch(self, seconds: float, rows: int) -> Batch:
        frame_count = round(seconds * RATE / FRAME)
        length = frame_count * FRAME
        drawn = [self._row(length) for _ in range(rows)]
        return _batch(drawn, length, self._rng)

    def _next(self, language: str) -> Utterance:
        """Each utterance once before any a second time."""
        waiting = self._waiting[language]
        if not waiting:
            waiting += self._kinds[language]
            self._rng.shuffle(waiting)
        return waiting.pop()

    def _row(self, length: int) -> Row:
        rng = self._rng
        language = "en" if rng.random() < 0.83 else "fr"
        window = self._window(length, language) if rng.random() > 0.1 else _silence(length, rng)
        # of a window that was cut early, the silence before the speech may be all there is
        is_speech = bool(window.speech.words or window.cut_words)
        words = [word.text for word in window.speech.words]
        prompt: tuple[int, ...] = ()
        if rng.random() < (0.65 if any(word in HOMOPHONES for word in words) else 0.3):
            others = [rng.choice(self._kinds[language]).text for _ in range(2)]
            prompt = tuple(prompts.make(words, others, rng))
        has_zeros_behind = rng.random() < 0.2
        sound = self._sounding(window.speech, length, is_speech=is_speech)
        return Row(sound, window, language, prompt, is_speech, has_zeros_behind)

    def _window(self, length: int, language: str) -> Window:
        rng = self._rng
        # a third of English windows name someone: spelling by prompt is slow to learn
        names = language == "en" and rng.random() < 0.4
        parts = [self._next("names" if names else language).speech]
        wanted = length * rng.uniform(0.5, 1) if rng.random() < 0.6 else 0
        while sum(len(part.samples) for part in parts) < wanted - RATE:
            parts.append(self._next(language).speech)
        gaps = [round(rng.uniform(0.05, 0.8) * RATE) for _ in parts] + [0]
        gaps[0] = rng.choice((0, round(rng.uniform(0, 0.7) * RATE)))
        speech = join(parts, gaps)
        start, end = 0, min(length, len(speech.samples))
        if rng.random() < 0.25:
            end = round(end * rng.uniform(0.15, 1))
        if rng.random() < 0.08:
            start = round(end * rng.uniform(0, 0.5))
        return cut(speech, start, end)

    def _sounding(self, speech: Speech, length: int, *, is_speech: bool) -> Sound:
        """Louder or softer, with noise under it: all along or under the speech only."""
        rng = self._rng
        sound = speech.samples.astype(np.float32) / 32_768 * 10 ** rng.uniform(-1.2, 0.25)
        is_endless = rng.random() < 0.6
        if is_endless:
            sound = np.pad(sound, (0, length - len(sound)))
        if rng.random() < 0.6 or (not is_speech and rng.random() < 0.3):
            noise = self._noise.standard_normal(len(sound)).astype(np.float32)
            if rng.random() < 0.5:
                # darker, as rooms are
                noise = np.convolve(noise, np.full(8, 0.35, np.float32), "same")
            sound = sound + noise * 10 ** rng.uniform(-4.5, -2.7 if is_speech else -1.7)
        clipped: Sound = np.clip(sound, -1, 1).astype(np.float32)
        return clipped


def _silence(length: int, rng: random.Random) -> Window:
    """Nothing, or a hum."""
    samples = np.zeros(length, np.int16)
    if rng.random() < 0.3:
        time = np.arange(length) / RATE
        hum = np.sin(2 * np.pi * rng.choice((50, 60, 100, 440, 1000)) * time)
        samples = (hum * 32_767 * 10 ** rng.uniform(-4, -1)).astype(np.int16)
    return Window(Speech(samples, ()))


def _batch(rows: Sequence[Row], length: int, rng: random.Random) -> Batch:
    frame_count = length // FRAME
    transcripts = [_transcript(row, rng) for row in rows]
    longest = max(len(ids) for ids, _ in transcripts) - 1
    ids = torch.full((len(rows), longest), vocabulary.compact()[vocabulary.END])
    labels = torch.full((len(rows), longest), IGNORED)
    frame_words = torch.full((len(rows), frame_count), NO_WORD)
    looks = torch.zeros(len(rows), longest, frame_count)
    padded = np.zeros((len(rows), length), np.float32)
    for index, (row, (tokens, first)) in enumerate(zip(rows, transcripts, strict=True)):
        padded[index, : len(row.sound)] = row.sound
        compact = torch.tensor([vocabulary.compact()[token] for token in tokens])
        ids[index, : len(tokens) - 1] = compact[:-1]
        labels[index, first - 1 : len(tokens) - 1] = compact[first:]
        language = row.language if row.is_speech else None
        labels[index, len(row.prompt)] = _language_label(language)
        _mark_frames(frame_words[index], row.window)
        _mark_looks(looks[index, first - 1 : len(tokens) - 1], row)
    mels = log_mels(torch.from_numpy(padded))
    for index, row in enumerate(rows):
        if row.has_zeros_behind:
            mels[index, :, len(row.sound) // 160 + 1 :] = 0.0
    for mel in mels:
        band = rng.randint(0, 72)
        mel[band : band + rng.randint(0, 8)] = mel.min()
    return Batch(mels, ids, labels, frame_words, looks)


def _language_label(language: str | None) -> int:
    full = vocabulary.NO_SPEECH if language is None else vocabulary.language_id(language)
    return vocabulary.compact()[full]


def _transcript(row: Row, rng: random.Random) -> tuple[list[int], int]:
    """All tokens, and the place of the first that must be said."""
    # faster-whisper asks for timestamps where it is not told otherwise: the first is taken
    timing = vocabulary.NO_TIMESTAMPS if rng.random() < 0.9 else vocabulary.FIRST_TIMESTAMP
    start = (vocabulary.START, vocabulary.language_id(row.language), vocabulary.TRANSCRIBE, timing)
    words = prompts.spelt([word.text for word in row.window.speech.words], row.prompt)
    return [*row.prompt, *start, *words, vocabulary.END], len(row.prompt) + len(start)


def _mark_frames(marked: Tensor, window: Window) -> None:
    for word in window.cut_words:
        first, end = frames(word)
        marked[first:end] = IGNORED
    for word in window.speech.words:
        first, end = frames(word)
        marked[first:end] = _WORD_INDEX[word.text]


def _mark_looks(looks: Tensor, row: Row) -> None:
    """A row for each word and one for the end."""
    count = looks.shape[1]
    words = row.window.speech.words
    for look, word, (first, end) in zip(looks, words, territories(words, count), strict=False):
        own_first, own_end = frames(word)
        pause = torch.zeros(count)
        pause[first:own_first] = 1
        pause[own_end:end] = 1
        has_pause = bool(pause.any())
        if has_pause:
            look += _PAUSE_SHARE * pause / pause.sum()
        own = look[own_first : min(own_end, count)]
        own += (1 - _PAUSE_SHARE * has_pause) / max(1, len(own))
    behind = frames(words[-1])[1] if words else count
    if behind + 1 < count and not row.window.cut_words:
        last = looks[len(words), behind : behind + _END_FRAMES]
        last += 1 / len(last)

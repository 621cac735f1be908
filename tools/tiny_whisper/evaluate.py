"""Measures an exported model on held-out sentences, as an engine would use it."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from tools.tiny_whisper import prompts, vocabulary
from tools.tiny_whisper.corpus import Utterance
from tools.tiny_whisper.opus import round_trip
from tools.tiny_whisper.synth import RATE, Samples, Speech, Word
from tools.tiny_whisper.windows import FRAME, cut, join
from tools.tiny_whisper.words import HOMOPHONES

Features = NDArray[np.float32]

SHORT, FULL, FULL_ZEROS = "cut to the speech", "30 s of audio", "30 s, features padded with zeros"
CONTEXTS = (SHORT, FULL, FULL_ZEROS)
FULL_FRAMES = 3_000

_extract = FeatureExtractor()


def features(samples: Samples, context: str) -> Features:
    """The log mels of a window, as long as the context has them."""
    sound = samples.astype(np.float32) / 32_768
    if context == FULL:
        sound = np.pad(sound, (0, 30 * RATE - len(sound)))
    mels = np.asarray(_extract(sound, padding=0), np.float32)
    if context == FULL_ZEROS:
        mels = np.pad(mels, ((0, 0), (0, FULL_FRAMES - mels.shape[1])))
    # an odd frame would make the encoder count half a position more
    return mels[:, : mels.shape[1] // 2 * 2]


def word_errors(heard: Sequence[str], said: Sequence[str]) -> int:
    """The edit distance."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        before, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            substituted = before + (word != other)
            before = costs[column]
            costs[column] = min(before + 1, costs[column - 1] + 1, substituted)
    return costs[-1]


@dataclass(frozen=True, slots=True)
class Heard:
    text: str
    no_speech_prob: float
    mean_log_prob: float


class Model:
    """An exported folder, opened as an engine opens it."""

    def __init__(self, folder: Path) -> None:
        self._model = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=1)

    @property
    def is_multilingual(self) -> bool:
        return bool(self._model.is_multilingual)

    def hear(
        self, mels: Features, language: str, beam: int = 1, prompt: Sequence[int] = ()
    ) -> Heard:
        (found,) = self._model.generate(
            _view(mels),
            [[*prompt, *start_of(language), vocabulary.NO_TIMESTAMPS]],
            beam_size=beam,
            max_length=448,
            return_scores=True,
            return_no_speech_prob=True,
        )
        text = vocabulary.decode(found.sequences_ids[0])
        return Heard(text, float(found.no_speech_prob), float(found.scores[0]))

    def language(self, mels: Features) -> str:
        ((token, _), *_) = self._model.detect_language(_view(mels))[0]
        return str(token)[2:-2]

    def spans(
        self, mels: Features, language: str, words: Sequence[str], heard_frames: int
    ) -> list[tuple[int, int]]:
        """Each word's first sample and the one after its last, by `align`.

        `heard_frames` are those that are not padding, 10 ms each.
        """
        ids = [vocabulary.word_id(word) for word in words]
        (found,) = self._model.align(
            _view(mels), list(start_of(language)), [ids], heard_frames, median_filter_width=7
        )
        starts: dict[int, int] = {}
        for token, frame in found.alignments:
            starts.setdefault(token, frame)
        bounds = [starts[place] * FRAME for place in range(len(words) + 1)]
        return list(pairwise(bounds))

    def unused_mass(self, mels: Features, language: str) -> float:
        """The most probability that a step gives to ids that were never trained."""
        (found,) = self._model.generate(
            _view(mels),
            [[*start_of(language), vocabulary.NO_TIMESTAMPS]],
            beam_size=1,
            return_logits_vocab=True,
        )
        is_unused = np.ones(vocabulary.SIZE, bool)
        is_unused[list(vocabulary.used())] = False
        most = 0.0
        for step in found.logits[0]:
            logits = np.asarray(step, np.float64).reshape(-1)[: vocabulary.SIZE]
            chances = np.exp(logits - logits.max())
            most = max(most, float(chances[is_unused].sum() / chances.sum()))
        return most


def start_of(language: str) -> tuple[int, int, int]:
    return vocabulary.START, vocabulary.language_id(language), vocabulary.TRANSCRIBE


def _view(mels: Features) -> ctranslate2.StorageView:
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(mels[None]))


@dataclass(frozen=True, slots=True)
class Case:
    """A window to be heard."""

    voice: str
    language: str
    speech: Speech


def singles(utterances: Iterable[Utterance]) -> list[Case]:
    """Each sentence with 0.1 s of silence around it."""
    return [Case(u.voice, u.language, join([u.speech], [RATE // 10] * 2)) for u in utterances]


def several(utterances: Sequence[Utterance], count: int) -> list[Case]:
    """So many sentences of one voice each, with pauses of 0.4 and 0.6 s; no more than 28 s."""
    cases = []
    for voice in dict.fromkeys(u.voice for u in utterances):
        own = [u for u in utterances if u.voice == voice]
        for place in range(0, len(own) - count + 1, count):
            some = own[place : place + count]
            pauses = [(6_400, 9_600)[index % 2] for index in range(count - 1)]
            speech = join([u.speech for u in some], [1_600, *pauses, 3_200])
            window = cut(speech, 0, min(len(speech.samples), 28 * RATE))
            cases.append(Case(voice, own[0].language, window.speech))
    return cases


def through_opus(cases: Iterable[Case], bit_rate: int = 24_000) -> list[Case]:
    return [
        Case(c.voice, c.language, Speech(round_trip(c.speech.samples, bit_rate), c.speech.words))
        for c in cases
    ]


def cut_anywhere(cases: Sequence[Case], seed: int) -> list[Case]:
    """The start of each window only, as a live interim has it."""
    rng = random.Random(seed)
    found = []
    for case in cases:
        end = round(len(case.speech.samples) * rng.uniform(0.3, 0.95))
        found.append(Case(case.voice, case.language, cut(case.speech, 0, end).speech))
    return found


def error_rates(
    model: Model,
    cases: Sequence[Case],
    context: str,
    beam: int,
    prompt: Callable[[Case], Sequence[int]] = lambda case: (),
) -> dict[str, float]:
    """The word error rate by voice, and of all under "all"."""
    wrong: dict[str, int] = {}
    count: dict[str, int] = {}
    for case in cases:
        before = prompt(case)
        heard = model.hear(features(case.speech.samples, context), case.language, beam, before)
        said = [word.text for word in case.speech.words]
        expected = [vocabulary.decode([index]) for index in prompts.spelt(said, before)]
        for key in (case.voice, "all"):
            wrong[key] = wrong.get(key, 0) + word_errors(heard.text.split(), expected)
            count[key] = count.get(key, 0) + len(said)
    return {key: wrong[key] / count[key] for key in wrong}


def language_accuracy(model: Model, cases: Sequence[Case], context: str) -> float:
    right = [
        model.language(features(case.speech.samples, context)) == case.language for case in cases
    ]
    return sum(right) / len(right)


def silences(seed: int) -> list[Samples]:
    """Nothing, and noises of several levels, 2 to 10 s long."""
    noise = np.random.default_rng(seed)
    found = []
    for seconds in (2, 3, 5, 10):
        length = seconds * RATE
        found.append(np.zeros(length, np.int16))
        for level in (3, 30, 150):
            found.append((noise.standard_normal(length) * level).astype(np.int16))
    return found


# a shorter silence between words is no pause
_PAUSE = RATE // 20


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Seconds between the aligner's words and the synthesiser's.

    Those at silence stand apart: an alignment gives every frame to some word, so that the first
    word starts with the window, and a word ends where the next one starts.
    """

    starts: list[float]
    first_starts: list[float]
    ends: list[float]
    ends_before_pauses: list[float]

    @staticmethod
    def of(model: Model, cases: Sequence[Case], context: str) -> "TimeErrors":
        errors = TimeErrors([], [], [], [])
        for case in cases:
            errors._add(model, case, context)
        return errors

    def _add(self, model: Model, case: Case, context: str) -> None:
        words: tuple[Word, ...] = case.speech.words
        mels = features(case.speech.samples, context)
        said = [word.text for word in words]
        spans = model.spans(mels, case.language, said, len(case.speech.samples) // 160)
        next_starts = [word.start for word in words[1:]] + [words[-1].end]
        for word, (start, end), after in zip(words, spans, next_starts, strict=True):
            starts = self.first_starts if word is words[0] else self.starts
            ends = self.ends_before_pauses if after - word.end > _PAUSE else self.ends
            starts.append(abs(start - word.start) / RATE)
            ends.append(abs(end - word.end) / RATE)


def homophone_share(
    model: Model, cases: Sequence[Case], context: str, prompt_of: Callable[[str], str | None]
) -> float:
    """How often a homophone comes as its rare spelling, the prompt being what is given for it."""
    rare = total = 0
    for case in cases:
        said = [w.text for w in case.speech.words if w.text in HOMOPHONES]
        if not said:
            continue
        text = prompt_of(said[0])
        before = [vocabulary.START_OF_PREVIOUS, *vocabulary.encode(text)] if text else []
        heard = model.hear(features(case.speech.samples, context), case.language, 5, before)
        total += 1
        rare += HOMOPHONES[said[0]] in heard.text.split()
    return rare / total


def milliseconds(model: Model, cases: Sequence[Case], context: str) -> float:
    """Of one thread, for a window, greedily."""
    ready = [(features(c.speech.samples, context), c.language) for c in cases]
    started = time.monotonic()
    for mels, language in ready:
        model.hear(mels, language)
    return (time.monotonic() - started) / len(ready) * 1000

"""Many sentences said once each, kept in one file: what training and evaluation hear."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.tiny_whisper.opus import round_trip
from tools.tiny_whisper.synth import Samples, Speech, Voice, Word, synthesise
from tools.tiny_whisper.words import distinct_sentences, other_sentences

# those that the word error rate is measured on; training hears each at many speeds
VOICES = {
    "en": ("slt", "rms", "awb", "kal16", "en-us", "en-us+f2", "en-us+m3"),
    "fr": ("fr", "fr+f2", "fr+m3"),
}
# more of espeak-ng's are heard in training, so that a voice is not all there is to a word
_MORE = {
    "en": ("en-us+m1", "en-us+m7", "en-us+f4"),
    "fr": ("fr+m1", "fr+f4", "fr+m7"),
}
_OPUS_SHARE = 0.3
_OPUS_BIT_RATES = (16_000, 20_000, 24_000, 32_000)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence, its language, and who said it."""

    speech: Speech
    language: str
    voice: str

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.speech.words)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be said, and how."""

    text: str
    language: str
    voice: Voice
    opus_bit_rate: int | None


def held_out_orders(each: int, seed: int) -> list[Order]:
    """`each` sentences for every voice, at its own speed."""
    orders = []
    for language, voices in VOICES.items():
        texts = iter(distinct_sentences(each * len(voices), seed, language))
        orders += [
            Order(next(texts), language, Voice(voice), None)
            for voice in voices
            for _ in range(each)
        ]
    return orders


def training_orders(english: int, french: int, seed: int, held_out: Sequence[Order]) -> list[Order]:
    """No held-out sentence; by voices at speeds and pitches of chance; some through Opus."""
    rng = random.Random(seed)
    unlike = frozenset(order.text for order in held_out)
    orders = []
    for language, count in (("en", english), ("fr", french)):
        # the voices that are measured are the larger share
        voices = VOICES[language] * 3 + _MORE[language]
        for text in other_sentences(count, seed, language, unlike):
            voice = Voice(rng.choice(voices), rng.uniform(0.87, 1.15), rng.uniform(0.9, 1.12))
            bit_rate = rng.choice(_OPUS_BIT_RATES) if rng.random() < _OPUS_SHARE else None
            orders.append(Order(text, language, voice, bit_rate))
    return orders


def said(order: Order) -> Utterance:
    speech = synthesise(order.text, order.voice)
    if order.opus_bit_rate is not None:
        speech = Speech(round_trip(speech.samples, order.opus_bit_rate), speech.words)
    return Utterance(speech, order.language, order.voice.name)


def say_all(orders: Sequence[Order], processes: int) -> Iterator[Utterance]:
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(said, orders, chunksize=50)


def save(path: Path, utterances: Sequence[Utterance]) -> None:
    lengths = [len(u.speech.samples) for u in utterances]
    spans = [(word.start, word.end) for u in utterances for word in u.speech.words]
    np.savez(
        path,
        samples=np.concatenate([u.speech.samples for u in utterances]),
        ends=np.cumsum(lengths),
        spans=np.array(spans, np.int32),
        texts=np.array([u.text for u in utterances]),
        languages=np.array([u.language for u in utterances]),
        voices=np.array([u.voice for u in utterances]),
    )


def load(path: Path) -> list[Utterance]:
    with np.load(path) as file:
        samples: Samples = file["samples"]
        parts = np.split(samples, file["ends"][:-1])
        spans = iter(file["spans"].tolist())
        return [
            Utterance(
                Speech(part, tuple(Word(word, *next(spans)) for word in str(text).split())),
                str(language),
                str(voice),
            )
            for part, text, language, voice in zip(
                parts, file["texts"], file["languages"], file["voices"], strict=True
            )
        ]

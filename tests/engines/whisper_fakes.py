"""What a Whisper model is made of, played: CTranslate2's model, a tokenizer, the features."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models

from transcriber.engines.whisper_batch import BatchOptions, WhisperBatch

LANGUAGES = ("en", "de", "fr", "es")


@functools.cache
def tokenizer(languages: tuple[str, ...] = LANGUAGES) -> Tokenizer:
    """One token a byte, and Whisper's special ones behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(tokenizer_models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    of_languages = [f"<|{language}|>" for language in languages]
    made.add_special_tokens(
        [
            *("<|endoftext|>", "<|startoftranscript|>", *of_languages, "<|translate|>"),
            *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
            "<|notimestamps|>",
        ]
    )
    return made


def tokens(text: str) -> list[int]:
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def special(name: str) -> int:
    token = tokenizer().token_to_id(f"<|{name}|>")
    assert token is not None
    return int(token)


def features(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """As many frames as the audio has, and one more, as the real ones give."""
    return np.full((80, len(audio) // 160 + 1), np.float32(np.abs(audio).max(initial=0.0)))


@dataclass
class Result:
    """Of `generate`."""

    sequences_ids: list[list[int]]
    scores: list[float]
    no_speech_prob: float


@dataclass
class Alignment:
    alignments: list[tuple[int, int]]
    text_token_probs: list[float]


@dataclass
class Model:
    """Records what it is given. Says its `texts`, one a row, the last one again and again."""

    texts: list[str] = field(default_factory=lambda: [" hello"])
    heard: list[list[tuple[str, float]]] = field(default_factory=list)
    is_multilingual: bool = True
    fails: Exception | None = None
    encoded: list[tuple[int, ...]] = field(default_factory=list)
    spectrograms: list[NDArray[np.float32]] = field(default_factory=list)
    prompts: list[list[list[int]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    detections: int = 0
    aligned: list[tuple[list[int], list[list[int]], list[int]]] = field(default_factory=list)
    alignment: Alignment | None = None

    def encode(self, spectrograms: Any) -> str:
        self.encoded.append(tuple(spectrograms.shape))
        self.spectrograms.append(np.array(spectrograms))
        return "encoded"

    def detect_language(self, encoded: str) -> list[list[tuple[str, float]]]:
        assert encoded == "encoded"
        self.detections += 1
        return self.heard

    def generate(self, encoded: str, prompts: list[list[int]], **options: Any) -> list[Result]:
        assert encoded == "encoded"
        if self.fails is not None:
            raise self.fails
        self.prompts.append(prompts)
        self.asked.append(options)
        last = self.texts[-1]
        texts = [*self.texts, *[last] * len(prompts)][: len(prompts)]
        end = special("endoftext")
        return [Result([[*tokens(text), end]], [-0.25], 0.125) for text in texts]

    def align(
        self, encoded: str, start: list[int], texts: list[list[int]], frames: list[int]
    ) -> list[Alignment]:
        """Two times a token, from the start on, unless one is given."""
        assert encoded == "encoded"
        self.aligned.append((start, texts, frames))
        if self.alignment is not None:
            return [self.alignment] * len(texts)
        return [
            Alignment([(n, 2 * n) for n in range(len(text) + 1)], [0.5] * len(text))
            for text in texts
        ]


def batch_of(model: Model, options: BatchOptions | None = None) -> WhisperBatch:
    return WhisperBatch(model, tokenizer(), features, options or BatchOptions())


def decoded(ids: Sequence[int]) -> str:
    return str(tokenizer().decode(list(ids)))

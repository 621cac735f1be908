"""One encode and one generate for windows of different speakers, languages and prompts.

Used by every engine that has a CTranslate2 Whisper model, however it was loaded. The windows
of a batch are of one `kind`: CTranslate2 wants `<|startoftranscript|>` at the same place in
every row, so prompts are cut to common lengths; interims take one beam and finals five; and
where the context is cut to the windows, windows of like length go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transcriber.engines.word_times import without_pauses
from transcriber.errors import OutOfMemory
from transcriber.types import SAMPLE_RATE, Evidence, Hypothesis, Samples, StreamId, Window, Word

LONGEST_S = 30
_FRAMES_PER_S = 100
_SAMPLES_PER_FRAME = SAMPLE_RATE // _FRAMES_PER_S
_SAMPLES_PER_TIMESTAMP = SAMPLE_RATE // 50  # the encoder halves the frames
_UNIT = np.float32(1 / 32_768)
# What is silence to the spectrogram: this much below its loudest, as for zeros.
_FLOOR = 2.0
PROMPT_TOKENS = (0, 16, 32, 64)
_CONTEXTS_S = (2, 3, 5, 8, 12, 20, LONGEST_S)
_INTERIM_BEAMS = 1
# With the usual 1, a beam search ends once as many poor hypotheses have ended as it has beams,
# be the best one still going on: words at the end of short sentences were lost.
_PATIENCE = 2.0
# Nobody says more; a text that runs away ends here.
_TOKENS_PER_S, _TOKENS_AT_LEAST, _TOKENS_AT_MOST = 12, 16, 224

Kind = tuple[bool, int, int]  # final, prompt's tokens, context in seconds


@dataclass(frozen=True, slots=True)
class BatchOptions:
    beams: int = 5
    short_context: bool = False
    least_context_s: float = 8.0


class WhisperBatch:
    """`model` is CTranslate2's, `tokenizer` of the tokenizers library, `features` turns float
    audio into a log-mel spectrogram."""

    def __init__(self, model: Any, tokenizer: Any, features: Any, options: BatchOptions) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._features = features
        self._options = options
        self._is_multilingual: bool = model.is_multilingual
        self._id = cache(tokenizer.token_to_id)
        self._words_of = cache(self._word_splitter)

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that have a token, English first."""
        from transcriber.engines.languages import WHISPER_LANGUAGES

        if not self._is_multilingual:
            return ("en",)
        known = [c for c in (*WHISPER_LANGUAGES, "yue") if self._id(f"<|{c}|>") is not None]
        return tuple(known)

    @property
    def detects(self) -> bool:
        return self._is_multilingual

    def kind(self, window: Window) -> Kind:
        """Windows of one kind may share a batch."""
        return window.is_final, len(self._prompt(window)), self._context_s(window)

    def warm_up(self) -> None:
        """So that the first speaker does not wait for what is made on first use."""
        noise = (np.random.default_rng(0).normal(0, 0.05, SAMPLE_RATE) * 32_768).astype(np.int16)
        language = "" if self._is_multilingual else "en"
        for is_final in (False, True):
            detect = ("en",) if self._is_multilingual else ()
            window = Window(StreamId("nobody"), 1, 1, 0, noise, is_final, language, detect=detect)
            self.transcribe([window])

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """One hypothesis per window, in their order. Raises `OutOfMemory`."""
        try:
            return self._transcribe(windows)
        except MemoryError as error:
            raise OutOfMemory(f"no memory for a batch of {len(windows)}") from error
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            raise OutOfMemory(f"no memory for a batch of {len(windows)}") from error

    def _transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        from ctranslate2 import StorageView

        is_final = windows[0].is_final
        context_s = max(self._context_s(w) for w in windows)
        spectrograms = self._spectrograms([w.samples for w in windows], context_s)
        encoded = self._model.encode(StorageView.from_array(spectrograms))
        heard = self._detect(encoded, windows)
        spoken = [
            self._known(w.language) or language or "en"
            for w, (language, _) in zip(windows, heard, strict=True)
        ]
        prompts = [
            [*self._prompt(window), *self._start(language), self._id("<|notimestamps|>")]
            for window, language in zip(windows, spoken, strict=True)
        ]
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=self._options.beams if is_final else _INTERIM_BEAMS,
            patience=_PATIENCE,
            max_length=_max_length(len(prompts[0]), _most_tokens(windows)),
            return_scores=True,
            return_no_speech_prob=True,
        )
        tokens = [self._text_tokens(result.sequences_ids[0]) for result in results]
        words: list[tuple[Word, ...]] = [()] * len(windows)
        if is_final:
            words = self._align(encoded, context_s, windows, spoken, tokens)
        return [
            Hypothesis(
                window.stream,
                window.utterance,
                window.revision,
                window.is_final,
                self._tokenizer.decode(tokens[row]).strip(),
                spoken[row],
                words[row],
                window.absorbed,
                evidence=Evidence(
                    # of no token there is none
                    float(results[row].scores[0]) if tokens[row] else None,
                    float(results[row].no_speech_prob),
                    *heard[row],
                ),
            )
            for row, window in enumerate(windows)
        ]

    # What goes in

    def _context_s(self, window: Window) -> int:
        """Seconds of audio that the encoder looks at."""
        if not self._options.short_context:
            return LONGEST_S
        seconds = max(self._options.least_context_s, len(window.samples) / SAMPLE_RATE)
        return next((c for c in _CONTEXTS_S if c >= seconds), LONGEST_S)

    def _spectrograms(self, audio: list[Samples], context_s: int) -> NDArray[np.float32]:
        frames = context_s * _FRAMES_PER_S
        rows: list[NDArray[np.float32]] = []
        for samples in audio:
            values = np.multiply(samples[: frames * _SAMPLES_PER_FRAME], _UNIT, dtype=np.float32)
            spectrogram = self._features(values)[:, :frames]
            row = np.full(
                (spectrogram.shape[0], frames), spectrogram.max() - _FLOOR, dtype=np.float32
            )
            row[:, : spectrogram.shape[1]] = spectrogram
            rows.append(row)
        return np.stack(rows)

    def _detect(self, encoded: Any, windows: Sequence[Window]) -> list[tuple[str, float]]:
        """What each is heard as, among the languages it asks for."""
        if not self._is_multilingual:
            return [("", 0.0)] * len(windows)
        if not any(w.detect or not self._known(w.language) for w in windows):
            return [("", 0.0)] * len(windows)
        heard: list[tuple[str, float]] = []
        for window, ranked in zip(windows, self._model.detect_language(encoded), strict=True):
            all_of = [(token[2:-2], float(share)) for token, share in ranked]
            among = [(c, share) for c, share in all_of if not window.detect or c in window.detect]
            language, share = max(among, key=lambda pair: pair[1], default=("en", 0.0))
            total = sum(share for _, share in among)
            heard.append((language, share / total if total else 0.0))
        return heard

    def _known(self, language: str) -> str:
        """As the model names it; empty where it does not."""
        short = language.split("-")[0].lower()
        known = (c for c in (language.lower(), short) if self._id(f"<|{c}|>") is not None)
        return next(known, "") if self._is_multilingual else "en"

    def _start(self, language: str) -> list[int]:
        start = [self._id("<|startoftranscript|>")]
        if self._is_multilingual:
            start += [self._id(f"<|{language}|>"), self._id("<|transcribe|>")]
        return start

    def _prompt(self, window: Window) -> list[int]:
        """The tokens before the start: the room's words, then what was said last, cut to one of
        the common lengths. A glossary shorter than the shortest is told more than once."""
        glossary, said = self._tokens(window.glossary), self._tokens(window.prompt)
        count = max(c for c in PROMPT_TOKENS if c <= 1 + len(glossary) + len(said))
        if glossary:
            least = (c for c in PROMPT_TOKENS if c > len(glossary))
            count = max(count, next(least, PROMPT_TOKENS[-1]))
        if not count:
            return []
        glossary = glossary[: count - 1]
        kept = count - 1 - len(glossary)
        said = said[-kept:] if kept else []
        again = (glossary * count)[: kept - len(said)]
        return [self._id("<|startofprev|>"), *again, *glossary, *said]

    def _tokens(self, text: str) -> list[int]:
        text = text.strip()
        if not text:
            return []
        # a text that spells a special token would be one, and move the start
        return self._text_tokens(self._tokenizer.encode(f" {text}", add_special_tokens=False).ids)

    # What comes out

    def _text_tokens(self, tokens: list[int]) -> list[int]:
        end = self._id("<|endoftext|>")
        return [token for token in tokens if token < end]

    def _align(
        self,
        encoded: Any,
        context_s: int,
        windows: Sequence[Window],
        languages: Sequence[str],
        tokens: list[list[int]],
    ) -> list[tuple[Word, ...]]:
        """Words with their times. One call takes one start, so one for each language."""
        # more frames than were encoded would be read from beyond the memory's end
        most = context_s * _FRAMES_PER_S
        frames = [min(most, -(-len(w.samples) // _SAMPLES_PER_FRAME)) for w in windows]
        words: list[tuple[Word, ...]] = [()] * len(windows)
        for language in sorted(set(languages)):
            rows = [r for r, spoken in enumerate(languages) if spoken == language and tokens[r]]
            if not rows:
                continue
            # the other rows go along without a text: a batch cannot be cut on a GPU
            texts = [tokens[r] if r in rows else [] for r in range(len(windows))]
            results = self._model.align(encoded, self._start(language), texts, frames)
            for row in rows:
                words[row] = self._timed(windows[row], language, tokens[row], results[row])
        return words

    def _timed(
        self, window: Window, language: str, tokens: list[int], result: Any
    ) -> tuple[Word, ...]:
        texts, counts = self._split(language, tokens)
        first_time = _first_times(result.alignments, len(tokens))
        timed: list[Word] = []
        at = 0
        for text, count in zip(texts, counts, strict=True):
            start, end = first_time[at], first_time[at + count]
            confidence = float(np.mean(result.text_token_probs[at : at + count] or [0.0]))
            at += count
            word = Word(
                text.strip(),
                min(window.start_sample + start * _SAMPLES_PER_TIMESTAMP, window.end_sample),
                min(window.start_sample + end * _SAMPLES_PER_TIMESTAMP, window.end_sample),
                round(confidence, 3),
            )
            if timed and not any(c.isalnum() for c in text):
                before = timed[-1]
                timed[-1] = Word(
                    before.text + text.rstrip(),
                    before.start_sample,
                    word.end_sample,
                    before.confidence,
                )
            elif word.text:
                timed.append(word)
        return without_pauses(tuple(timed), window.samples, window.start_sample)

    def _split(self, language: str, tokens: list[int]) -> tuple[list[str], list[int]]:
        texts, groups = self._words_of(language).split_to_word_tokens(tokens)
        return texts, [len(group) for group in groups]

    def _word_splitter(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(
            self._tokenizer, self._is_multilingual, task="transcribe", language=language
        )


def _most_tokens(windows: Sequence[Window]) -> int:
    longest_s = max(len(w.samples) for w in windows) / SAMPLE_RATE
    return min(_TOKENS_AT_MOST, _TOKENS_AT_LEAST + round(longest_s * _TOKENS_PER_S))


def _max_length(prompt: int, most: int) -> int:
    """CTranslate2 generates half of it at most, and no more than it leaves beside the prompt."""
    return max(2 * most, prompt + most)


def _first_times(alignments: list[tuple[int, int]], tokens: int) -> list[int]:
    """The first time of each token, and where the last one ends."""
    first: dict[int, int] = {}
    last = 0
    for token, time in alignments:
        first.setdefault(token, time)
        last = max(last, time)
    times = [first.get(token, last) for token in range(tokens)]
    # the row after the text is its end
    return [*times, first.get(tokens, last)]

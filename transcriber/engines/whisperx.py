"""Whisper as WhisperX loads it, with its forced alignment and diarization.

Its own pipeline is not used: that holds one language and one prompt for a whole batch, and
changes itself while it runs. Windows go in batches through CTranslate2 as for `whisper`
(`whisper_batch`); finals are then aligned to their phonemes where WhisperX has a model for the
language that is here or may be fetched, else their words keep the times of the cross-attention.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from transcriber.engines import EngineOptions, Tell
from transcriber.engines.whisper import WhisperEngine, engine_threads
from transcriber.engines.whisper_batch import BatchOptions, WhisperBatch
from transcriber.errors import EngineUnavailable, OutOfMemory
from transcriber.types import SAMPLE_RATE, EngineState, Hypothesis, Window, Word

log = logging.getLogger("roomscribe.worker")


class WhisperxEngine(WhisperEngine):
    name = "whisperx"

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(options)
        self._aligners: dict[str, tuple[Any, Any] | None] = {}
        self._diarizer: Any = None

    def load(self, tell: Tell) -> None:
        try:
            import whisperx  # noqa: F401
        except ImportError as error:
            raise EngineUnavailable(
                "the extra is not installed: pip install 'roomscribe[whisperx]'"
            ) from error
        super().load(tell)
        language = self._options.language.split("-")[0].lower()
        if language in self.info.languages:
            tell(EngineState.DOWNLOADING, None, "fetching the alignment model")
            self._load_aligner(language)
        if self._options.diarize:
            self._diarizer = self._load_diarizer()

    def open_model(self, folder: Path, device: str, options: BatchOptions) -> WhisperBatch:
        import whisperx

        pipeline = whisperx.load_model(
            str(folder),
            device=device,
            compute_type=self.compute_type(device),
            language=None,  # for its pipeline, which is not used
            threads=engine_threads(self._options),
            local_files_only=True,
        )
        model = pipeline.model
        return WhisperBatch(model.model, model.hf_tokenizer, model.feature_extractor, options)

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        hypotheses = super().transcribe(windows)
        if not windows[0].is_final:
            return hypotheses
        return [self._refined(w, h) for w, h in zip(windows, hypotheses, strict=True)]

    def _refined(self, window: Window, hypothesis: Hypothesis) -> Hypothesis:
        """With the times of its phonemes, and voices. What fails in there costs only these."""
        try:
            return self._tell_apart(window, self._align(window, hypothesis))
        except (RuntimeError, MemoryError) as error:
            if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
                raise OutOfMemory("no memory to align a final") from error
            log.warning("a final was not aligned", extra={"reason": type(error).__name__})
            return hypothesis

    def _align(self, window: Window, hypothesis: Hypothesis) -> Hypothesis:
        """With the times of its phonemes, where there is a model for its language."""
        aligner = self._aligner(hypothesis.language)
        if aligner is None or not hypothesis.text:
            return hypothesis
        import whisperx

        model, metadata = aligner
        audio = window.samples.astype(np.float32) / 32_768
        segment = {"text": hypothesis.text, "start": 0.0, "end": len(audio) / SAMPLE_RATE}
        found = whisperx.align([segment], model, metadata, audio, self.device())
        words = _aligned_words(found["word_segments"], window, hypothesis.words)
        return replace(hypothesis, words=words)

    def _aligner(self, language: str) -> tuple[Any, Any] | None:
        """The model of a language, if it is loaded; the first that is heard in another language
        than the one of the settings has it loaded, and does not wait for it."""
        if language not in self._aligners:
            self._aligners[language] = None
            threading.Thread(
                target=self._load_aligner, args=(language,), daemon=True, name="aligner"
            ).start()
        return self._aligners[language]

    def _load_aligner(self, language: str) -> None:
        import whisperx
        import whisperx.alignment

        self._aligners[language] = None
        # It would split a text into sentences with a model that it fetches while it aligns; ours
        # is one utterance, and stays one.
        whisperx.alignment.nltk_load = lambda _name: _OneSentence()
        try:
            self._check_aligner(language)
            self._aligners[language] = whisperx.load_align_model(
                language, self.device(), model_cache_only=not self._options.auto_download
            )
        except Exception as error:
            # Many libraries stand between here and a file: any of them may say no.
            log.info(
                "no forced alignment: words keep the times of the cross-attention",
                extra={"reason": f"{language}: {type(error).__name__}"},
            )

    def _check_aligner(self, language: str) -> None:
        """Raises `EngineUnavailable` where WhisperX would fetch what it must not."""
        if self._options.auto_download:
            return
        import torch
        import torchaudio
        from whisperx.alignment import DEFAULT_ALIGN_MODELS_TORCH

        name = DEFAULT_ALIGN_MODELS_TORCH.get(language)
        if name is None:
            return  # of the hub: it is told to look only here
        bundle = getattr(torchaudio.pipelines, name)
        file = Path(getattr(bundle, "_path", "nowhere")).name
        if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
            raise EngineUnavailable("the alignment model is not installed")

    def _load_diarizer(self) -> Any:
        from whisperx.diarize import DiarizationPipeline

        try:
            return DiarizationPipeline(device=self.device())
        except Exception as error:
            raise EngineUnavailable(
                "the models for diarization are not here and could not be fetched; they ask for "
                "an account of the hub (HF_TOKEN)"
            ) from error

    def _tell_apart(self, window: Window, hypothesis: Hypothesis) -> Hypothesis:
        """With the voice of each word, where that was asked for."""
        if self._diarizer is None or not hypothesis.words:
            return hypothesis
        import whisperx

        turns = self._diarizer(window.samples.astype(np.float32) / 32_768)
        offset = window.start_sample
        segment = {
            "start": 0.0,
            "end": len(window.samples) / SAMPLE_RATE,
            "text": hypothesis.text,
            "words": [
                {
                    "word": word.text,
                    "start": (word.start_sample - offset) / SAMPLE_RATE,
                    "end": (word.end_sample - offset) / SAMPLE_RATE,
                }
                for word in hypothesis.words
            ],
        }
        told = whisperx.assign_word_speakers(turns, {"segments": [segment]})
        voices = [word.get("speaker", "") for word in told["segments"][0]["words"]]
        words = tuple(replace(w, voice=v) for w, v in zip(hypothesis.words, voices, strict=True))
        return replace(hypothesis, words=words)


class _OneSentence:
    """In the place of a sentence splitter of NLTK's."""

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def _aligned_words(
    found: list[dict[str, Any]], window: Window, before: tuple[Word, ...]
) -> tuple[Word, ...]:
    """Words with the times that were found; one that has none keeps what it had."""
    words = []
    for index, each in enumerate(found):
        had = before[index] if index < len(before) else None
        if "start" not in each:
            if had is not None:
                words.append(replace(had, text=each["word"]))
            continue
        words.append(
            Word(
                each["word"],
                window.start_sample + round(each["start"] * SAMPLE_RATE),
                min(window.end_sample, window.start_sample + round(each["end"] * SAMPLE_RATE)),
                round(float(each.get("score", had.confidence if had else 0.0)), 3),
            )
        )
    return tuple(words)

"""Whisper by CTranslate2, loaded through faster-whisper: on a CPU with int8, or with CUDA.

A model is a folder, or a name of the hub; one that is not here is fetched, where that is
allowed. `roomscribe.json` in a model's folder may declare that it was trained to do with a
context shorter than 30 s: `{"short_context": true, "least_context_s": 2}`.
"""

import json
import os
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transcriber.engines import EngineOptions, Tell, expected_info, models
from transcriber.engines.whisper_batch import LONGEST_S, BatchOptions, WhisperBatch
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import EngineInfo, EngineState, Hypothesis, Window

DEFAULT_ON_CPU, DEFAULT_ON_CUDA = "base", "large-v3-turbo"
# A batch at full context takes seconds on a processor: finals wait for it.
_BATCH_ON_CPU, _FULL_BATCH_ON_CPU, _BATCH_ON_CUDA = 16, 8, 32
_DECLARED = "roomscribe.json"


class WhisperEngine:
    name = "whisper"
    longest_s: float = LONGEST_S

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._batch: WhisperBatch | None = None
        self.batch_limit = options.batch or _BATCH_ON_CPU
        self.info = expected_info(replace(options, engine=self.name))

    def load(self, tell: Tell) -> None:
        device = self.device()
        model = self._options.model or (DEFAULT_ON_CUDA if device == "cuda" else DEFAULT_ON_CPU)
        folder = self._folder(model, tell)
        tell(EngineState.LOADING, None, "")
        batch_options = _batch_options(self._options, folder)
        if not self._options.batch:
            on_cpu = _BATCH_ON_CPU if batch_options.short_context else _FULL_BATCH_ON_CPU
            self.batch_limit = _BATCH_ON_CUDA if device == "cuda" else on_cpu
        try:
            self._batch = self.open_model(folder, device, batch_options)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"the model could not be loaded: {_first_line(error)}") from error
        name = folder.name if models.is_path(model) else model
        context = "short context" if batch_options.short_context else "full context"
        self.info = EngineInfo(
            self.name,
            name,
            self._batch.languages,
            f"Whisper on {'a GPU' if device == 'cuda' else 'the processor'}, {context}.",
            detects=self._batch.detects,
        )

    def warm_up(self) -> None:
        self._loaded.warm_up()

    def kind(self, window: Window) -> Hashable:
        return self._loaded.kind(window)

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        return self._loaded.transcribe(windows)

    def close(self) -> None:
        self._batch = None

    def device(self) -> str:
        if self._options.device != "auto":
            return self._options.device
        return "cuda" if has_cuda() else "cpu"

    def open_model(self, folder: Path, device: str, options: BatchOptions) -> WhisperBatch:
        """Load the model of a folder. Raises what the library raises."""
        from faster_whisper import WhisperModel

        model = WhisperModel(
            str(folder),
            device=device,
            compute_type=self.compute_type(device),
            cpu_threads=engine_threads(self._options),
            local_files_only=True,
        )
        return WhisperBatch(model.model, model.hf_tokenizer, model.feature_extractor, options)

    def compute_type(self, device: str) -> str:
        if self._options.compute_type != "auto":
            return self._options.compute_type
        return "float16" if device == "cuda" else "int8"

    @property
    def _loaded(self) -> WhisperBatch:
        assert self._batch is not None, "load() first"
        return self._batch

    def _folder(self, model: str, tell: Tell) -> Path:
        folder = models.find(model)
        if folder is not None:
            return folder
        if not self._options.auto_download:
            raise EngineUnavailable(models.how_to_install(model))
        told = f"fetching the model {model}"
        tell(EngineState.DOWNLOADING, 0.0, told)
        return models.fetch(model, lambda share: tell(EngineState.DOWNLOADING, share, told))


def has_cuda() -> bool:
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count())


def engine_threads(options: EngineOptions) -> int:
    """All processors but one: the event loops want theirs."""
    return options.threads or max(1, len(os.sched_getaffinity(0)) - 1)


def _batch_options(options: EngineOptions, folder: Path) -> BatchOptions:
    declared = _declared(folder)
    if options.short_context == "auto":
        short = bool(declared.get("short_context", False))
        least = declared.get("least_context_s", options.short_context_min_s)
        if not isinstance(least, int | float):
            raise EngineUnavailable(f"{_DECLARED} of the model: least_context_s is no number")
    else:
        short, least = options.short_context == "on", options.short_context_min_s
    return BatchOptions(options.beams, short, float(least))


def _declared(folder: Path) -> dict[str, Any]:
    path = folder / _DECLARED
    if not path.is_file():
        return {}
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineUnavailable(f"{_DECLARED} of the model is not JSON") from error
    if not isinstance(declared, dict):
        raise EngineUnavailable(f"{_DECLARED} of the model is not an object")
    return declared


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

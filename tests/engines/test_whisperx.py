import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.engines.hub import FILES
from tests.engines.whisper_fakes import Model, features, tokenizer
from tests.logs import logged
from tests.transcriber.builders import window
from transcriber.engines import EngineOptions, tell_nobody
from transcriber.engines.whisperx import WhisperxEngine
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import SAMPLE_RATE, Hypothesis, Window

TICK = SAMPLE_RATE // 50


class Pipeline:
    """WhisperX's own, of which nothing but its model is to be touched."""

    def __init__(self, model: Model) -> None:
        self.model = SimpleNamespace(
            model=model, hf_tokenizer=tokenizer(), feature_extractor=features
        )

    def transcribe(self, *_: object, **__: object) -> object:
        raise AssertionError("the pipeline's own transcribe was called")


@dataclass
class Whisperx:
    """The library, played: what it was asked for, and what it finds."""

    model: Model = field(default_factory=Model)
    aligners: tuple[str, ...] = ("en", "de")
    found: list[dict[str, Any]] = field(default_factory=list)
    voices: list[str] = field(default_factory=list)
    loaded: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    loaded_aligners: list[tuple[str, bool]] = field(default_factory=list)
    aligned: list[dict[str, Any]] = field(default_factory=list)
    load_error: Exception | None = None

    def load_model(self, folder: str, **options: Any) -> Pipeline:
        if self.load_error is not None:
            raise self.load_error
        self.loaded.append((folder, options))
        return Pipeline(self.model)

    def load_align_model(
        self, language: str, device: str, *, model_cache_only: bool
    ) -> tuple[str, dict[str, str]]:
        self.loaded_aligners.append((language, model_cache_only))
        if language not in self.aligners:
            raise ValueError(f"No default align-model for language: {language}")
        return f"aligner of {language}", {"language": language}

    def align(
        self, segments: list[dict[str, Any]], model: str, metadata: Any, audio: Any, device: str
    ) -> dict[str, Any]:
        (segment,) = segments
        self.aligned.append({**segment, "model": model, "audio": audio, "device": device})
        return {"word_segments": self.found}

    def assign_word_speakers(self, turns: object, result: dict[str, Any]) -> dict[str, Any]:
        assert turns == "turns"
        for word, voice in zip(result["segments"][0]["words"], self.voices, strict=True):
            if voice:
                word["speaker"] = voice
        return result


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Whisperx:
    played = Whisperx()
    module = ModuleType("whisperx")
    for name in ("load_model", "load_align_model", "align", "assign_word_speakers"):
        setattr(module, name, getattr(played, name))
    module.__path__ = []
    module.alignment = ModuleType("whisperx.alignment")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "whisperx", module)
    monkeypatch.setitem(sys.modules, "whisperx.alignment", module.alignment)
    return played


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def engine_of(folder: Path, **options: Any) -> WhisperxEngine:
    engine = WhisperxEngine(EngineOptions("whisperx", model=str(folder), device="cpu", **options))
    engine.load(tell_nobody)
    return engine


def hear(engine: WhisperxEngine, *windows: Window) -> list[Hypothesis]:
    heard = engine.transcribe(windows)
    for thread in threading.enumerate():
        if thread.name == "aligner":
            thread.join()
    return heard


def final(stream: str = "ada", *, language: str = "en", start_s: float = 0.0) -> Window:
    return window(stream, final=True, language=language, start_s=start_s)


def times(hypothesis: Hypothesis) -> list[tuple[str, int, int]]:
    return [(w.text, w.start_sample, w.end_sample) for w in hypothesis.words]


def test_without_the_extra_it_is_unavailable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisperx", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'roomscribe\[whisperx\]'"):
        engine_of(folder)


def test_a_model_that_the_library_cannot_load_is_an_error(library: Whisperx, folder: Path) -> None:
    library.load_error = RuntimeError("unsupported compute type\nat a line of C++")
    with pytest.raises(EngineError, match=r"could not be loaded: unsupported compute type$"):
        engine_of(folder)


def test_the_model_is_loaded_from_its_folder_and_says_what_it_is(
    library: Whisperx, folder: Path
) -> None:
    engine = engine_of(folder, threads=3, compute_type="int8")
    ((name, options),) = library.loaded
    assert name == str(folder)
    assert options["device"] == "cpu"
    assert (options["threads"], options["compute_type"]) == (3, "int8")
    assert options["local_files_only"]
    assert (engine.info.name, engine.info.model) == ("whisperx", folder.name)
    assert engine.info.detects


def test_a_final_has_the_times_of_its_phonemes(library: Whisperx, folder: Path) -> None:
    library.model.texts = [" hi you"]
    library.found = [
        {"word": "hi", "start": 0.1, "end": 0.25, "score": 0.9},
        {"word": "you", "start": 0.3, "end": 0.5, "score": 0.8},
    ]
    (heard,) = hear(engine_of(folder), final(start_s=10.0))
    begin = 10 * SAMPLE_RATE
    assert times(heard) == [("hi", begin + 1600, begin + 4000), ("you", begin + 4800, begin + 8000)]
    assert [w.confidence for w in heard.words] == [0.9, 0.8]
    (asked,) = library.aligned
    assert (asked["text"], asked["start"], asked["end"]) == ("hi you", 0.0, 1.0)
    assert (asked["model"], asked["device"]) == ("aligner of en", "cpu")
    assert asked["audio"].dtype == np.float32


def test_a_word_without_phonemes_keeps_the_time_it_had(library: Whisperx, folder: Path) -> None:
    library.model.texts = [" in 2014 we"]
    library.found = [
        {"word": "in", "start": 0.0, "end": 0.1, "score": 0.9},
        {"word": "2014"},
        {"word": "we", "start": 0.5, "end": 2.0},
    ]
    (heard,) = hear(engine_of(folder), final())
    assert times(heard) == [
        ("in", 0, 1600),
        # of the cross-attention: two times a byte
        ("2014", 6 * TICK, 16 * TICK),
        # and no further than the window
        ("we", 8000, SAMPLE_RATE),
    ]
    assert heard.words[2].confidence == 0.5


def test_a_language_without_an_aligner_keeps_the_words_of_the_cross_attention(
    library: Whisperx, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library.model.texts = [" hola"]
    engine = engine_of(folder, language="auto")
    with caplog.at_level("INFO", "roomscribe.worker"):
        for _ in range(3):
            (heard,) = hear(engine, final(language="es"))
            assert times(heard) == [("hola", 0, 10 * TICK)]
    # asked for once, and said once
    assert library.loaded_aligners == [("es", False)]
    assert [vars(r)["reason"] for r in logged(caplog)] == ["es: ValueError"]
    assert library.aligned == []


def test_an_aligner_is_loaded_once_for_each_language_and_nobody_waits_for_it(
    library: Whisperx, folder: Path
) -> None:
    engine = engine_of(folder)
    assert library.loaded_aligners == [("en", False)]
    for language in ("en", "de", "en", "de"):
        hear(engine, final(language=language))
    assert library.loaded_aligners == [("en", False), ("de", False)]
    # the first in German may have had the times of the cross-attention
    assert [each["model"] for each in library.aligned][-2:] == ["aligner of en", "aligner of de"]


def test_finals_of_different_languages_share_a_batch(library: Whisperx, folder: Path) -> None:
    library.model.texts = [" hello", " hallo"]
    engine = engine_of(folder)
    hear(engine, final("bob", language="de"))
    library.model.encoded.clear()
    library.aligned.clear()
    hear(engine, final("ada"), final("bob", language="de"))
    assert len(library.model.encoded) == 1
    assert [(a["text"], a["model"]) for a in library.aligned] == [
        ("hello", "aligner of en"),
        ("hallo", "aligner of de"),
    ]


def test_interims_and_finals_without_text_are_not_aligned(library: Whisperx, folder: Path) -> None:
    engine = engine_of(folder)
    hear(engine, window(language="de"))
    assert library.loaded_aligners == [("en", False)]
    library.model.texts = [""]
    (heard,) = hear(engine, final())
    assert library.aligned == []
    assert heard.words == ()


def test_voices_are_told_apart_where_that_was_asked_for(
    library: Whisperx, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diarize = ModuleType("whisperx.diarize")
    diarize.DiarizationPipeline = lambda device: lambda audio: "turns"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "whisperx.diarize", diarize)
    library.model.texts = [" hi you"]
    library.aligners = ()
    library.voices = ["SPEAKER_00", ""]
    (heard,) = hear(engine_of(folder, diarize=True), final())
    assert [(w.text, w.voice) for w in heard.words] == [("hi", "SPEAKER_00"), ("you", "")]
    (plain,) = hear(engine_of(folder), final())
    assert [w.voice for w in plain.words] == ["", ""]


def test_without_the_models_for_voices_it_is_unavailable(
    library: Whisperx, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(device: str) -> object:
        raise OSError("401 Unauthorized")

    diarize = ModuleType("whisperx.diarize")
    diarize.DiarizationPipeline = refuses  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "whisperx.diarize", diarize)
    with pytest.raises(EngineUnavailable, match="HF_TOKEN"):
        engine_of(folder, diarize=True)

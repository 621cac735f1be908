"""WhisperX itself with the tiny model, on a processor; `make test-whisperx` runs this."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from tests.tiny import MODEL, Said, say
from tests.transcriber.builders import window
from transcriber.engines import EngineOptions, tell_nobody
from transcriber.engines.whisper import WhisperEngine
from transcriber.engines.whisperx import WhisperxEngine
from transcriber.errors import EngineUnavailable
from transcriber.recordings import word_errors
from transcriber.types import Window

pytestmark = [
    pytest.mark.whisperx,
    # torch, lightning and pyannote warn of each other's next versions
    pytest.mark.filterwarnings("ignore"),
]

SAID = (
    ("please send the quick report", "slt"),
    ("robert will open the window on friday", "rms"),
    ("we meet in tokyo on monday at seven", "awb"),
)
FRENCH = ("la voiture est rouge vendredi", "fr")


@pytest.fixture(scope="module")
def options() -> EngineOptions:
    pytest.importorskip("whisperx", reason="the extra [whisperx] is not installed")
    return EngineOptions("whisperx", str(MODEL), auto_download=False)


@pytest.fixture(scope="module")
def engine(options: EngineOptions) -> Iterator[WhisperxEngine]:
    engine = WhisperxEngine(options)
    engine.load(tell_nobody)
    engine.warm_up()
    yield engine
    engine.close()


def asked(said: list[Said], *, final: bool, language: str = "en") -> list[Window]:
    return [
        window(f"room/p{n}", samples=one.samples, final=final, language=language)
        for n, one in enumerate(said)
    ]


def test_sentences_are_understood_in_one_batch(engine: WhisperxEngine) -> None:
    said = [say(*each) for each in SAID]
    heard = engine.transcribe(asked(said, final=False))
    counts = [word_errors(one.text, h.text) for one, h in zip(said, heard, strict=True)]
    assert sum(errors for errors, _ in counts) / sum(words for _, words in counts) <= 0.1


def test_it_hears_what_the_engine_without_whisperx_hears(
    engine: WhisperxEngine, options: EngineOptions
) -> None:
    plain = WhisperEngine(options)
    plain.load(tell_nobody)
    windows = asked([say(*each) for each in SAID], final=True)
    assert [h.text for h in engine.transcribe(windows)] == [
        h.text for h in plain.transcribe(windows)
    ]
    plain.close()


def test_two_languages_share_a_batch(engine: WhisperxEngine) -> None:
    english, french = say(*SAID[0]), say(*FRENCH)
    one, other = engine.transcribe(
        [
            window("room/a", samples=english.samples, language="en"),
            window("room/b", samples=french.samples, language="fr"),
        ]
    )
    assert (one.text, one.language) == (english.text, "en")
    assert (other.text, other.language) == (french.text, "fr")


def test_without_an_alignment_model_words_keep_the_times_of_the_model(
    options: EngineOptions, caplog: pytest.LogCaptureFixture
) -> None:
    engine = WhisperxEngine(options)
    with caplog.at_level(logging.INFO, "roomscribe.worker"):
        engine.load(tell_nobody)
    if engine._aligners["en"] is None:
        (record,) = (r for r in caplog.records if r.name == "roomscribe.worker")
        assert vars(record)["reason"] == "en: EngineUnavailable"
    said = say(*SAID[0])
    (heard,) = engine.transcribe(asked([said], final=True))
    assert [w.text for w in heard.words] == said.text.split()
    engine.close()


def test_forced_alignment_gives_the_words_the_times_of_their_sounds(
    engine: WhisperxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WhisperX's own alignment code, with an acoustic model that hears every letter as likely:
    no trained one can be had without a download. Words stand in order within the window."""
    torch = pytest.importorskip("torch", reason="the extra [whisperx] is not installed")
    letters = ["-", "|", *"abcdefghijklmnopqrstuvwxyz'"]

    class Ears(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, audio: object, lengths: object = None) -> object:
            frames = audio.shape[1] // 320  # type: ignore[attr-defined]
            return torch.full((1, frames, len(letters)), 1.0 / len(letters)), None

    metadata = {
        "language": "en",
        "dictionary": {letter: n for n, letter in enumerate(letters)},
        "type": "torchaudio",
    }
    monkeypatch.setitem(engine._aligners, "en", (Ears(), metadata))
    said = say(*SAID[0])
    samples = np.concatenate([np.zeros(1600, np.int16), said.samples])
    (heard,) = engine.transcribe([window(samples=samples, final=True, start_s=3.0)])
    assert [w.text for w in heard.words] == said.text.split()
    starts = [w.start_sample for w in heard.words]
    assert starts == sorted(starts)
    assert all(48_000 <= w.start_sample <= w.end_sample for w in heard.words)
    assert heard.words[-1].end_sample <= 48_000 + len(samples)


def test_its_own_voice_activity_model_finds_the_speech(options: EngineOptions) -> None:
    import whisperx

    said = say(*SAID[0]).samples.astype(np.float32) / 32_768
    sound = np.concatenate([np.zeros(32_000, np.float32), said, np.zeros(32_000, np.float32)])
    pipeline = whisperx.load_model(
        str(MODEL), device="cpu", compute_type="int8", language="en", local_files_only=True
    )
    (segment,) = pipeline.transcribe(sound)["segments"]
    assert 1.5 <= segment["start"] <= 2.6
    assert 2.0 + len(said) / 16_000 - 0.6 <= segment["end"] <= 2.5 + len(said) / 16_000


def test_diarization_without_its_models_is_refused_with_the_reason(
    options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    engine = WhisperxEngine(replace(options, diarize=True))
    with pytest.raises(EngineUnavailable, match="HF_TOKEN"):
        engine.load(tell_nobody)

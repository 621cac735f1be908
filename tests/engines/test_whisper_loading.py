import json
from pathlib import Path

import pytest

from tests.engines.hub import FILES
from tests.engines.whisper_fakes import Model, batch_of
from transcriber.engines import EngineOptions, models, whisper
from transcriber.engines.whisper import WhisperEngine, engine_threads
from transcriber.engines.whisper_batch import BatchOptions, WhisperBatch
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import EngineState


class Opened(WhisperEngine):
    """Opens no model, and notes how it was asked to."""

    model = Model()
    error: Exception | None = None

    def open_model(self, folder: Path, device: str, options: BatchOptions) -> WhisperBatch:
        if self.error is not None:
            raise self.error
        self.opened = (folder, device, options)
        return batch_of(self.model, options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def declare(folder: Path, declared: object) -> None:
    (folder / "roomscribe.json").write_text(json.dumps(declared))


def opened(options: EngineOptions) -> tuple[Opened, list[EngineState]]:
    told: list[EngineState] = []
    engine = Opened(options)
    engine.load(lambda state, _progress, _message: told.append(state))
    return engine, told


def options_of(folder: Path, **options: str | int | float | bool) -> BatchOptions:
    engine, _ = opened(EngineOptions("whisper", model=str(folder), device="cpu", **options))  # type: ignore[arg-type]
    return engine.opened[2]


def test_a_folder_is_opened_and_named_without_its_path(folder: Path) -> None:
    engine, told = opened(EngineOptions("whisper", model=str(folder), device="cpu"))
    assert engine.opened[:2] == (folder, "cpu")
    assert (engine.info.name, engine.info.model) == ("whisper", folder.name)
    assert engine.info.languages == ("en", "de", "es", "fr")
    assert engine.info.note == "Whisper on the processor, full context."
    assert told == [EngineState.LOADING]


@pytest.mark.parametrize(
    ("device", "has_cuda", "model", "batch"),
    [
        ("auto", False, "base", 8),
        ("auto", True, "large-v3-turbo", 32),
        ("cpu", True, "base", 8),
        ("cuda", False, "large-v3-turbo", 32),
    ],
)
def test_the_model_and_the_batch_follow_the_device(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    has_cuda: bool,
    model: str,
    batch: int,
) -> None:
    monkeypatch.setattr(whisper, "has_cuda", lambda: has_cuda)
    monkeypatch.setattr(models, "find", lambda _name: folder)
    engine, _ = opened(EngineOptions("whisper", device=device))
    assert (engine.info.model, engine.batch_limit) == (model, batch)
    small, _ = opened(EngineOptions("whisper", device=device, batch=3))
    assert small.batch_limit == 3


def test_a_model_that_is_not_here_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, progress: models.Progress) -> Path:
        progress(0.5)
        return folder

    monkeypatch.setattr(models, "find", lambda _name: None)
    monkeypatch.setattr(models, "fetch", fetch)
    engine, told = opened(EngineOptions("whisper", model="tiny", device="cpu"))
    assert told == [EngineState.DOWNLOADING, EngineState.DOWNLOADING, EngineState.LOADING]
    assert engine.info.model == "tiny"


def test_where_nothing_may_be_fetched_it_is_told_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find", lambda _name: None)
    with pytest.raises(EngineUnavailable, match="python -m transcriber models --fetch tiny"):
        opened(EngineOptions("whisper", model="tiny", device="cpu", auto_download=False))


@pytest.mark.parametrize(
    "error", [RuntimeError("torn\nin C++"), ValueError("torn"), OSError("torn")]
)
def test_a_model_that_cannot_be_opened_is_an_error_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Opened, "error", error)
    with pytest.raises(EngineError, match=r"^the model could not be loaded: torn$") as caught:
        opened(EngineOptions("whisper", model=str(folder), device="cpu"))
    assert not isinstance(caught.value, EngineUnavailable)


def test_a_context_is_short_where_the_model_declares_it_or_it_is_asked_for(folder: Path) -> None:
    assert options_of(folder) == BatchOptions(5, short_context=False, least_context_s=8.0)
    assert options_of(folder, short_context="on").short_context
    declare(folder, {"short_context": True, "least_context_s": 2})
    assert options_of(folder) == BatchOptions(5, short_context=True, least_context_s=2.0)
    assert not options_of(folder, short_context="off").short_context
    # who asks knows better than the model
    assert options_of(folder, short_context="on", short_context_min_s=4.0) == BatchOptions(
        5, short_context=True, least_context_s=4.0
    )
    declare(folder, {"short_context": True})
    assert options_of(folder, short_context_min_s=5.0, beams=2) == BatchOptions(
        2, short_context=True, least_context_s=5.0
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"short_context": true, "least_context_s": "two"}', "least_context_s is no number"),
        ('{"short_context": true, "least_context_s": null}', "least_context_s is no number"),
    ],
)
def test_a_declaration_that_is_none_is_told(folder: Path, content: str, reason: str) -> None:
    (folder / "roomscribe.json").write_text(content)
    with pytest.raises(EngineUnavailable, match=reason):
        options_of(folder)


def test_a_processor_is_left_for_the_event_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert engine_threads(EngineOptions()) == 7
    assert engine_threads(EngineOptions(threads=2)) == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3})
    assert engine_threads(EngineOptions()) == 1
